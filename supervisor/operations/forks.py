"""Children of an instance: forks of its shared memory, copies, checkpoints, and many at a time."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from itertools import islice
from pathlib import Path

from supervisor.admission.controller import Admitting
from supervisor.errors import BadRequestError, SupervisorError
from supervisor.images import boot_image
from supervisor.models import (
    NAME_LENGTH,
    CheckpointRequest,
    ErrorBody,
    ErrorDetail,
    FanOutChild,
    FanOutEstimate,
    FanOutRequest,
    FanOutResult,
    ForkKind,
    ForkOptions,
    ForkRequest,
    Instance,
    Level,
    MemoryBackend,
    State,
)
from supervisor.operations.checkpoints import Checkpoints
from supervisor.operations.instances import Operations
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import Intent, Verb
from supervisor.runtime.templates import Templates
from supervisor.runtime.vmms import Machines
from supervisor.snapshots.layer_files import link
from supervisor.snapshots.layers import Layers, all_names
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord, TemplateRecord, child_of
from supervisor.store.registry import new_id

SUFFIX_LENGTH = 5
"""How much of a name `-<n>` may take."""


_log = logging.getLogger(__name__)


class Forking:
    """Makes children; a child holds its source's lock from its first record on, and a failed child leaves nothing."""

    def __init__(
        self,
        inventory: Inventory,
        operations: Operations,
        machines: Machines,
        layers: Layers,
        templates: Templates,
        checkpoints: Checkpoints,
        admitting: Admitting,
        report: Callable[[Level, str, str | None], None],
    ) -> None:
        self._inventory = inventory
        self._operations = operations
        self._machines = machines
        self._layers = layers
        self._templates = templates
        self._checkpoints = checkpoints
        self._admitting = admitting
        self._report = report

    async def fork(self, reference: str, request: ForkRequest) -> InstanceRecord:
        """Make one child of an instance and bring it to its target state."""
        source = self._inventory.resolve(reference)
        name = request.name or next(self._inventory.free_names(_prefix(source.name)))
        child = await self._fork(source.id, name, request, new_id())
        self._report("info", f"{child.name}: forked from {source.name}", child.id)
        return child

    async def checkpoint(self, reference: str, request: CheckpointRequest) -> InstanceRecord:
        """Make a Standby child of a Running instance, which runs on."""
        source = self._inventory.resolve(reference)
        name = request.name or next(self._inventory.free_names(_prefix(source.name)))

        async def make(held: InstanceRecord, child_id: str) -> InstanceRecord:
            self._operations.check(Verb.CHECKPOINT, held)
            return await self._take(held, child_id, name, "checkpoint", None)

        return await self._child(source.id, name, new_id(), Verb.CHECKPOINT, make)

    async def estimate(self, reference: str, request: FanOutRequest) -> FanOutEstimate:
        """Return how many forks fit, what limits them, and what `count` of them take."""
        source = self._inventory.resolve(reference)
        await self._check_fan_out(source, request)
        return await self._admitting.estimate(source, request)

    async def fan_out(
        self, reference: str, request: FanOutRequest, view: Callable[[InstanceRecord], Instance]
    ) -> FanOutResult:
        """Make `count` children, `concurrency` at a time; each succeeds or fails by itself.

        Raises InsufficientResourcesError where they do not fit, unless `force` is given.
        """
        source = self._inventory.resolve(reference)
        await self._check_fan_out(source, request)
        async with self._admitting.admit(source, request) as promise:
            names = list(islice(self._inventory.free_names(request.name_prefix or _prefix(source.name)), request.count))
            # Taken now, all of them: another fan-out picks from what is left.
            children_ids = {name: new_id() for name in names}
            for name, child_id in children_ids.items():
                self._inventory.reserve(name, child_id)
            places = asyncio.Semaphore(request.concurrency)
            began = time.monotonic()

            async def child(name: str) -> FanOutChild:
                async with places:
                    try:
                        return await self._fan_out_child(source.id, name, request, children_ids[name], view)
                    finally:
                        promise.kept()

            try:
                children = tuple(await asyncio.gather(*map(child, names)))
            finally:
                for name, child_id in children_ids.items():
                    self._inventory.give_back(name, child_id)
        failed = sum(made.error is not None for made in children)
        milliseconds = (time.monotonic() - began) * 1e3
        outcome = f"{len(children) - failed} of {len(children)} forks in {milliseconds:.0f} ms"
        self._report("warning" if failed else "info", f"{source.name}: fan-out made {outcome}", source.id)
        return FanOutResult(children=children, milliseconds=milliseconds)

    async def _fan_out_child(
        self,
        source_id: str,
        name: str,
        request: FanOutRequest,
        child_id: str,
        view: Callable[[InstanceRecord], Instance],
    ) -> FanOutChild:
        try:
            made = await self._fork(source_id, name, request, child_id)
            return FanOutChild(name=name, instance=view(made))
        except SupervisorError as error:
            details = tuple(ErrorDetail(**detail) for detail in error.details)
            failure = ErrorBody(code=error.code, message=error.message, details=details)
        except Exception as error:
            # A defect in one child's making is not to sink the others.
            _log.exception("fork %s failed", name)
            failure = ErrorBody(code=SupervisorError.code, message=f"{name}: {error!r}")
        return FanOutChild(name=name, error=failure)

    async def _check_fan_out(self, source: InstanceRecord, request: FanOutRequest) -> None:
        if request.from_running:
            raise BadRequestError(
                f"{source.name}: fan-out refused: from_running is for a single fork; put it to standby first"
            )
        lifecycle.check_fork(source.name, source.state, request)
        await self._check_loads(source, request)

    async def _fork(self, source_id: str, name: str, options: ForkOptions, child_id: str) -> InstanceRecord:
        async def make(source: InstanceRecord, child_id: str) -> InstanceRecord:
            lifecycle.check_fork(source.name, source.state, options)
            target = lifecycle.fork_target(source.state, options)
            if target is State.RUNNING and source.state is not State.STOPPED:
                lifecycle.check_backend(Verb.FORK, source.name, source.huge_pages > 0, _backend(options))
            if options.from_running:
                return await self._take(source, child_id, name, "copy", _intent(State.STANDBY, target))
            return await self._make(source, child_id, name, options)

        async with self._operations.hold_new(child_id, Verb.FORK):
            child = await self._child(source_id, name, child_id, Verb.FORK, make)
            source_state = State.RUNNING if options.from_running else child.state
            return await self._bring(child, lifecycle.fork_target(source_state, options))

    async def _child(
        self,
        source_id: str,
        name: str,
        child_id: str,
        verb: Verb,
        make: Callable[[InstanceRecord, str], Awaitable[InstanceRecord]],
    ) -> InstanceRecord:
        """Have a child made of an instance, which is held meanwhile; the name is given back where there is none."""
        self._inventory.reserve(name, child_id)
        try:
            async with self._operations.hold(source_id, verb) as source:
                return await make(source, child_id)
        except BaseException:
            self._inventory.give_back(name, child_id)
            raise

    async def _take(
        self, source: InstanceRecord, child_id: str, name: str, kind: ForkKind, intent: Intent | None
    ) -> InstanceRecord:
        child = await self._checkpoints.take(source, child_id, name, kind, intent)
        paused = child.phases[0].milliseconds
        self._report("info", f"{name}: checkpoint of {source.name}, which was paused for {paused:.1f} ms", child_id)
        return child

    async def _make(self, source: InstanceRecord, child_id: str, name: str, options: ForkOptions) -> InstanceRecord:
        """Write the child's record and directory; the caller holds the source."""
        await self._check_loads(source, options)
        backend = _backend(options)
        if backend == "uffd":
            self._machines.check_userfaultfd(source.hypervisor)
        target = lifecycle.fork_target(source.state, options)
        if source.state is State.STANDBY and backend == "file" and target is State.RUNNING:
            # Once for all of its forks, whose clean pages are then the same file's.
            source = await self._layers.flatten(source)
        template = await self._template(source, options)
        child = child_of(source, child_id, name, "share_memory" if template else "copy").model_copy(
            update={
                "template_id": template.id if template else None,
                "attached": template is not None,
                "memory_backend": backend if source.snapshot else None,
                "prefetch": options.prefetch,
                "intent": _intent(source.state, target),
                "record_hot_pages": options.record if template else "off",
            }
        )
        source_directory = self._inventory.registry.directory(source.id)

        def populate(directory: Path) -> None:
            boot_image.copy_machine(source_directory, directory)
            link(all_names(source.snapshot), source_directory, directory)

        await self._inventory.add(child, populate)
        return child

    async def _check_loads(self, source: InstanceRecord, options: ForkOptions) -> None:
        """Refuse a fork that would not load: to run, or as one of a template, which is there for that."""
        shares = options.share_memory or options.template_id is not None
        if shares or lifecycle.fork_target(source.state, options) is State.RUNNING:
            await self._machines.check_loads(source)

    async def _bring(self, child: InstanceRecord, target: State) -> InstanceRecord:
        """Bring a new child, held by the caller, to its target state; on failure nothing of it is left."""
        try:
            match target:
                case State.RUNNING if child.state is State.STANDBY:
                    return await self._operations.resume(child)
                case State.RUNNING:
                    return await self._operations.boot(child)
                case State.STOPPED if child.state is State.STANDBY:
                    return await self._operations.drop_snapshot(child)
            return child
        except BaseException:
            await asyncio.shield(self._operations.discard(child))
            raise

    async def _template(self, source: InstanceRecord, options: ForkOptions) -> TemplateRecord | None:
        if options.template_id is not None:
            template = self._inventory.templates.get(options.template_id)
            if template is None or template.instance_id != source.id:
                raise BadRequestError(
                    f"{source.name}: fork refused: {options.template_id} is not its template; "
                    "share_memory=true finds the template by itself"
                )
            return template
        return await self._templates.promote(source) if options.share_memory else None


def _intent(state: State, target: State) -> Intent | None:
    """Return what a child's first record says that is in `state` and on its way to `target`."""
    return None if state is target else "fork"


def _backend(options: ForkOptions) -> MemoryBackend:
    """Return where a fork made with these takes its memory from: one that shares none has a file of its own."""
    return options.memory_backend if options.share_memory or options.template_id is not None else "file"


def _prefix(name: str) -> str:
    return name[: NAME_LENGTH - SUFFIX_LENGTH].rstrip("-")
