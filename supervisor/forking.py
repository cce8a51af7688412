"""Forks: of a Standby instance's shared memory, as a copy, from a running one, and many at a time."""

import asyncio
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from supervisor import admission, images, lifecycle
from supervisor.admitting import Admitting, Promise
from supervisor.errors import BadRequestError, NotFoundError, SupervisorError
from supervisor.inventory import Inventory
from supervisor.lifecycle import Verb
from supervisor.machines import Machines
from supervisor.models import (
    NAME_LENGTH,
    ErrorBody,
    ErrorDetail,
    FanOutChild,
    FanOutEstimate,
    FanOutRequest,
    FanOutResult,
    ForkOptions,
    ForkRequest,
    Instance,
    Level,
    State,
)
from supervisor.operations import Operations
from supervisor.records import InstanceRecord, TemplateRecord
from supervisor.registry import new_id
from supervisor.templates import Templates, own_snapshot

SUFFIX_LENGTH = 5
"""How much of a name `-<n>` may take."""


class Forking:
    """Makes children; a child holds its source's lock from its first record on, and a failed child leaves nothing."""

    def __init__(
        self,
        inventory: Inventory,
        operations: Operations,
        machines: Machines,
        templates: Templates,
        admitting: Admitting,
        report: Callable[[Level, str, str | None], None],
    ) -> None:
        self._inventory = inventory
        self._operations = operations
        self._machines = machines
        self._templates = templates
        self._admitting = admitting
        self._report = report

    async def fork(self, reference: str, request: ForkRequest) -> InstanceRecord:
        """Make one child of an instance and bring it to its target state."""
        source = self._inventory.resolve(reference)
        name = request.name or next(self._inventory.free_names(_prefix(source.name)))
        child = await self._fork(source.id, name, request)
        self._report("info", f"{child.name}: forked from {source.name}", child.id)
        return child

    async def estimate(self, reference: str, request: FanOutRequest) -> FanOutEstimate:
        """Return how many forks fit, what limits them, and what `count` of them take."""
        source = self._inventory.resolve(reference)
        if request.from_running:
            raise BadRequestError(
                f"{source.name}: fan-out refused: from_running is for a single fork; put it to standby first"
            )
        lifecycle.check_fork(source.name, source.state, request)
        return await self._admitting.estimate(source, request)

    async def fan_out(
        self, reference: str, request: FanOutRequest, view: Callable[[InstanceRecord], Instance]
    ) -> FanOutResult:
        """Make `count` children, `concurrency` at a time; each succeeds or fails by itself.

        Raises InsufficientResourcesError where they do not fit, unless `force` is given.
        """
        source = self._inventory.resolve(reference)
        estimate = await self.estimate(source.id, request)
        if not request.force:
            admission.check(source.name, estimate)
        names = list(islice(self._inventory.free_names(request.name_prefix or _prefix(source.name)), request.count))
        places = asyncio.Semaphore(request.concurrency)
        began = time.monotonic()

        async def child(name: str, promise: Promise) -> FanOutChild:
            async with places:
                try:
                    return FanOutChild(name=name, instance=view(await self._fork(source.id, name, request)))
                except SupervisorError as error:
                    details = tuple(ErrorDetail(**detail) for detail in error.details)
                    return FanOutChild(
                        name=name, error=ErrorBody(code=error.code, message=error.message, details=details)
                    )
                finally:
                    promise.kept()

        with self._admitting.promise(estimate) as promise:
            children = tuple(await asyncio.gather(*(child(name, promise) for name in names)))
        failed = sum(made.error is not None for made in children)
        milliseconds = (time.monotonic() - began) * 1e3
        outcome = f"{len(children) - failed} of {len(children)} forks in {milliseconds:.0f} ms"
        self._report("warning" if failed else "info", f"{source.name}: fan-out made {outcome}", source.id)
        return FanOutResult(children=children, milliseconds=milliseconds)

    async def _fork(self, source_id: str, name: str, options: ForkOptions) -> InstanceRecord:
        child_id = new_id()
        self._inventory.reserve(name, child_id)
        try:
            async with self._operations.hold(source_id, Verb.FORK) as source:
                lifecycle.check_fork(source.name, source.state, options)
                target = lifecycle.fork_target(source.state, options)
                if options.from_running:
                    child = await self._from_running(source, child_id, name, options)
                else:
                    child = await self._make(source, child_id, name, options)
        except BaseException:
            if child_id not in self._inventory.instances:
                self._inventory.give_back(name)
            raise
        return await self._bring(child, target)

    async def _from_running(
        self, source: InstanceRecord, child_id: str, name: str, options: ForkOptions
    ) -> InstanceRecord:
        """Put the source to standby, copy it, and run it on, also when the copy fails."""
        standby = await self._operations.suspend(source)
        try:
            return await self._make(standby, child_id, name, options)
        finally:
            await asyncio.shield(self._operations.resume(standby))

    async def _make(self, source: InstanceRecord, child_id: str, name: str, options: ForkOptions) -> InstanceRecord:
        """Write the child's record and directory; the caller holds the source."""
        if options.memory_backend == "uffd" and (options.share_memory or options.template_id):
            self._machines.check_userfaultfd(source.hypervisor)
        template = await self._template(source, options)
        snapshot = own_snapshot(source) if source.state is State.STANDBY else None
        child = InstanceRecord(
            id=child_id,
            name=name,
            image=source.image,
            state=source.state,
            hypervisor=source.hypervisor,
            size_bytes=source.size_bytes,
            vcpus=source.vcpus,
            created_at=datetime.now(UTC),
            source_id=source.id,
            fork_kind="share_memory" if template else "copy",
            template_id=template.id if template else None,
            attached=template is not None,
            memory_backend=(options.memory_backend if template else "file") if snapshot else None,
            prefetch=options.prefetch,
            record_hot_pages=template is not None and self._records(template, options),
            snapshot=snapshot,
            next_layer=source.next_layer,
        )
        source_directory = self._inventory.registry.directory(source.id)

        def populate(directory: Path) -> None:
            images.copy_machine(source_directory, directory)
            for file in (snapshot.state, *snapshot.layers) if snapshot else ():
                os.link(source_directory / file, directory / file)

        await self._inventory.add(child, populate)
        if child.record_hot_pages and template is not None:
            self._inventory.set_recording(child.id, template.id)
        return child

    async def _bring(self, child: InstanceRecord, target: State) -> InstanceRecord:
        try:
            async with self._operations.hold(child.id, Verb.FORK) as record:
                match target:
                    case State.RUNNING if record.state is State.STANDBY:
                        return await self._operations.resume(record)
                    case State.RUNNING:
                        return await self._operations.boot(record)
                    case State.STOPPED if record.state is State.STANDBY:
                        return await self._operations.drop_snapshot(record)
                return record
        except NotFoundError:
            raise
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

    def _records(self, template: TemplateRecord, options: ForkOptions) -> bool:
        """Return whether this fork is to record its template's hot pages."""
        if options.memory_backend != "uffd" or options.record == "off":
            return False
        if self._inventory.recorder(template.id) is not None:
            return False
        return options.record == "on" or template.recorded_pages == 0


def _prefix(name: str) -> str:
    return name[: NAME_LENGTH - SUFFIX_LENGTH].rstrip("-")
