"""Children of an instance, one at a time: forks of its shared memory, copies, checkpoints."""

import asyncio
from pathlib import Path
from typing import Any

from supervisor.errors import BadRequestError, MachineFileError
from supervisor.images.machine_files import copy_machine, own_config
from supervisor.images.metadata import check_fits, check_metadata
from supervisor.models import NAME_LENGTH, CheckpointRequest, ForkOptions, ForkRequest, State
from supervisor.models.base import Report
from supervisor.models.readiness import on_later_load
from supervisor.operations.holding import Holding
from supervisor.operations.snapshots import Snapshots
from supervisor.operations.transitions import Transitions
from supervisor.remedies import Remedy
from supervisor.rules.fork_plan import ForkPlan, plan_fork
from supervisor.rules.lifecycle import Verb
from supervisor.runtime.readiness_probes import ReadinessProbes
from supervisor.runtime.templates import Templates
from supervisor.runtime.vmms import Vmms
from supervisor.snapshots.layer_files import link
from supervisor.snapshots.layers import Layers, all_names
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord, child_of
from supervisor.store.registry import new_id

SUFFIX_LENGTH = 5
"""How much of a name `-<n>` may take."""


class Forks:
    """Makes children; a child holds its source's lock from its first record on, and a failed child leaves nothing."""

    def __init__(
        self,
        inventory: Inventory,
        holding: Holding,
        transitions: Transitions,
        snapshots: Snapshots,
        vmms: Vmms,
        layers: Layers,
        templates: Templates,
        probes: ReadinessProbes,
        report: Report,
    ) -> None:
        self._inventory = inventory
        self._holding = holding
        self._transitions = transitions
        self._snapshots = snapshots
        self._vmms = vmms
        self._layers = layers
        self._templates = templates
        self._probes = probes
        self._report = report

    async def fork(self, reference: str, request: ForkRequest) -> InstanceRecord:
        """Make one child of an instance and bring it to its target state."""
        source = self._inventory.resolve(reference)
        child = await self.make(source.id, request.name or self._free_name(source), request, new_id())
        self._report("info", f"{child.name}: forked from {source.name}", child.id)
        return child

    async def checkpoint(self, reference: str, request: CheckpointRequest) -> InstanceRecord:
        """Make a Standby child of a Running instance, which runs on."""
        source = self._inventory.resolve(reference)
        name, child_id = request.name or self._free_name(source), new_id()
        with self._inventory.reserved(name, child_id):
            async with self._holding.hold(source.id, Verb.CHECKPOINT) as held:
                self._holding.check(Verb.CHECKPOINT, held)
                await self._check_metadata(held, request.metadata)
                given = {} if request.metadata is None else {"metadata": request.metadata}
                child = await self._snapshots.checkpoint(held, child_id, name, "checkpoint", given)
        self._report_pause(held, child)
        return child

    async def make(self, source_id: str, name: str, options: ForkOptions, child_id: str) -> InstanceRecord:
        """Make one child by its name and id, and bring it to its target state."""
        with self._inventory.reserved(name, child_id):
            async with self._holding.hold_new(child_id, name, Verb.FORK):
                async with self._holding.hold(source_id, Verb.FORK) as source:
                    plan = await self.plan(source, options)
                    if plan.from_running:
                        given = _given(options, plan)
                        child = await self._snapshots.checkpoint(source, child_id, name, plan.kind, given)
                        self._report_pause(source, child)
                    else:
                        child = await self._add(source, child_id, name, options, plan)
                return await self._bring(child, plan)

    async def plan(self, source: InstanceRecord, options: ForkOptions) -> ForkPlan:
        """Return what a fork is to be; refused where it is known by now that it could not become that."""
        plan = plan_fork(source.name, source.state, source.huge_pages > 0, options)
        loads = plan.shares_memory or (plan.runs and not plan.from_running)
        if loads:
            # One of a template is there to be run, if not now.
            await self._vmms.check_loads(source)
        await self._vmms.check_machine(source, source.snapshot if loads else None)
        if plan.backend == "uffd":
            self._vmms.check_userfaultfd(source.hypervisor)
        await self._probes.check(source, options.readiness)
        await self._check_metadata(source, options.metadata)
        if options.template_id is not None:
            self._check_template(source, options.template_id)
        return plan

    async def _add(
        self, source: InstanceRecord, child_id: str, name: str, options: ForkOptions, plan: ForkPlan
    ) -> InstanceRecord:
        """Write the child's record and directory; the caller holds the source."""
        if plan.needs_one_file:
            # Once for all of its forks, whose clean pages are then the same file's.
            source = await self._layers.flatten(source)
        template = await self._templates.promote(source) if plan.shares_memory else None
        child = child_of(source, child_id, name, plan.kind).model_copy(
            update={
                "template_id": template.id if template else None,
                "attached": plan.shares_memory,
                "memory_backend": plan.backend if source.snapshot else None,
                "prefetch": options.prefetch,
                "record_hot_pages": options.record if template else "off",
                **_given(options, plan),
            }
        )
        source_directory = self._inventory.layout.instance(source.id)
        if child.intent is not None:
            child = await self._vmms.housed(child, source_directory)

        def populate(directory: Path) -> None:
            copy_machine(source_directory, directory)
            link(all_names(source.snapshot), source_directory, directory)

        return await self._inventory.add(child, populate)

    async def _bring(self, child: InstanceRecord, plan: ForkPlan) -> InstanceRecord:
        """Bring a new child, held by the caller, to its target state; on failure nothing of it is left."""
        try:
            match plan.target:
                case State.RUNNING if child.state is State.STANDBY:
                    if plan.from_running:
                        await self._vmms.check_loads(child)
                    return await self._transitions.load(child)
                case State.RUNNING:
                    return await self._transitions.boot(child)
                case State.STOPPED if child.state is State.STANDBY:
                    return await self._transitions.drop_snapshot(child)
            return child
        except BaseException:
            await asyncio.shield(self._transitions.discard(child))
            raise

    async def _check_metadata(self, source: InstanceRecord, metadata: dict[str, Any] | None) -> None:
        """Raise BadRequestError where a guest with this machine could not be told this."""
        if metadata is None:
            return
        directory = self._inventory.layout.instance(source.id)

        def check() -> None:
            config = own_config(directory)
            check_metadata(source.name, metadata, config)
            try:
                check_fits(source.name, metadata, config, directory)
            except OSError as error:
                raise MachineFileError(f"{source.name}: {error.filename}: {error.strerror}; put it back") from error

        await asyncio.to_thread(check)

    def _check_template(self, source: InstanceRecord, template_id: str) -> None:
        template = self._inventory.templates.get(template_id)
        if template is None or template.instance_id != source.id:
            raise BadRequestError(
                f"{source.name}: fork refused: {template_id} is not its template, which need not be named",
                remedy=Remedy.SHARE_MEMORY,
            )

    def _free_name(self, source: InstanceRecord) -> str:
        return next(self._inventory.free_names(name_prefix(source.name)))

    def _report_pause(self, source: InstanceRecord, child: InstanceRecord) -> None:
        paused = f"which was paused for {child.phases[0].milliseconds:.1f} ms"
        self._report("info", f"{child.name}: checkpoint of {source.name}, {paused}", child.id)


def _given(options: ForkOptions, plan: ForkPlan) -> dict[str, object]:
    """Return what the first record of a fork says of what was asked for, however it is made."""
    given: dict[str, object] = {"intent": plan.intent}
    if options.metadata is not None:
        given["metadata"] = options.metadata
    if options.readiness is not None:
        loads = plan.first_state is State.STANDBY and plan.target is not State.STOPPED
        port = on_later_load(options.readiness)
        given |= {"ready_on_load": port, "ready_on_boot": port} if port else {}
        given["ready_on_load" if loads else "ready_on_boot"] = options.readiness
    return given


def name_prefix(name: str) -> str:
    """Return what the names of an instance's children begin with; `-<n>` has room behind it."""
    return name[: NAME_LENGTH - SUFFIX_LENGTH].rstrip("-")
