"""What can be asked of a host without changing it."""

import asyncio
import os
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from supervisor.concurrency.tasks import beside
from supervisor.errors import BadRequestError, NotFoundError
from supervisor.images.machine_info import machine_info
from supervisor.models import (
    HostSnapshot,
    Instance,
    Jails,
    Lineage,
    LineageNode,
    MachineInfo,
    PageMapFold,
    ResourceStats,
    State,
    SupervisorInfo,
    WaitResult,
)
from supervisor.operations.shown_fan_outs import ShownFanOuts
from supervisor.remedies import Remedy
from supervisor.runtime.readiness_probes import ReadinessProbes
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord
from supervisor.telemetry.sampler import Sampler
from supervisor.uffd.page_map import LATENCY_BOUNDS_SECONDS, PageMapReader
from supervisor.vmm.hypervisor import Hypervisor


class Queries:
    """References are ids, names or unique id prefixes."""

    def __init__(
        self,
        inventory: Inventory,
        telemetry: Sampler,
        hypervisor: Hypervisor,
        fan_outs: ShownFanOuts,
        probes: ReadinessProbes,
        firecracker_problem: str | None,
        jails: Callable[[], Jails],
    ) -> None:
        self._inventory = inventory
        self._telemetry = telemetry
        self._hypervisor = hypervisor
        self._fan_outs = fan_outs
        self._probes = probes
        self._firecracker_problem = firecracker_problem
        self._jails = jails
        self._started_at = datetime.now(UTC)

    def snapshot(self) -> HostSnapshot:
        """Return the whole host as it is now."""
        publisher = self._inventory.publisher
        return HostSnapshot(
            supervisor=SupervisorInfo(
                pid=os.getpid(),
                version=metadata.version("forktui"),
                started_at=self._started_at,
                data_dir=str(self._inventory.layout.data_dir),
                hypervisor=self._hypervisor.name,
                hypervisor_version=self._hypervisor.version,
                firecracker_problem=self._firecracker_problem,
                jails=self._jails(),
            ),
            instances=tuple(publisher.views()),
            templates=tuple(map(publisher.view_template, self._inventory.templates.values())),
            statistics=tuple(self._telemetry.statistics.values()),
            host=self._telemetry.host,
            fan_outs=self._fan_outs(),
            at=datetime.now(UTC),
        )

    def instances(self, state: State | None = None) -> list[Instance]:
        """Return every instance, or those in one state; records that cannot be read are shown as Unknown."""
        return [view for view in self._inventory.publisher.views() if state is None or view.state is state]

    def instance(self, reference: str) -> Instance:
        """Return one instance."""
        return self._inventory.publisher.view(self._inventory.resolve(reference))

    def instance_in_full(self, reference: str) -> Instance:
        """Return one instance with what may be large of it, and is told to nobody else."""
        record = self._inventory.resolve(reference)
        return self._inventory.publisher.view(record).model_copy(update={"metadata": record.metadata})

    async def wait(
        self, reference: str, state: State, seconds: float, *, ready: bool = False, readiness: str | None = None
    ) -> WaitResult:
        """Return when the instance is in `state`, or after `seconds`.

        With `ready` also its guest is, if anything says by what, or with `readiness` by that; and where it has ended,
        it is waited for no longer. Raises BadRequestError where nothing could tell.
        """
        found = self._inventory.resolve(reference)
        await self._probes.check(found, readiness)
        more = ready or readiness is not None
        try:
            async with asyncio.timeout(seconds):
                record = await self._until(found, lambda now: now.state is state or (more and self._at_rest(now)))
                if record.process is not None and ready and record.readiness is not None:
                    record = await self._until(found, lambda now: now.ready_at is not None or self._at_rest(now))
                if record.process is not None and readiness is not None:
                    return await self._probed(record, readiness)
        except TimeoutError:
            record = self._present(found)
            return WaitResult(state=record.state, timed_out=True)
        is_ready = record.process is not None and (record.readiness is None or record.ready_at is not None)
        ended = record.exit_message if record.state is not state else None
        return WaitResult(state=record.state, timed_out=False, ready=is_ready, state_error=ended)

    async def _probed(self, record: InstanceRecord, readiness: str) -> WaitResult:
        """Return whether a guest that runs is ready, when it is, or has ended."""
        ends = self._until(record, lambda now: now.process != record.process)
        async with beside(self._probes.until(record, readiness)) as probe, beside(ends) as end:
            await asyncio.wait((probe, end), return_when=asyncio.FIRST_COMPLETED)
            if not probe.done():
                ended = await end
                return WaitResult(state=ended.state, timed_out=False, state_error=ended.exit_message)
            probe.result()
        return WaitResult(state=self._present(record).state, timed_out=False, ready=True)

    async def _until(self, found: InstanceRecord, holds: Callable[[InstanceRecord], bool]) -> InstanceRecord:
        """Return an instance when something holds of it."""
        while not holds(record := self._present(found)):
            await self._inventory.publisher.changed()
        return record

    def _present(self, found: InstanceRecord) -> InstanceRecord:
        record = self._inventory.instances.get(found.id)
        if record is None:
            raise NotFoundError(f"{found.name}: deleted while it was waited for")
        return record

    def _at_rest(self, record: InstanceRecord) -> bool:
        """Return whether nothing runs of an instance, and nothing is being done that would have it run."""
        return record.process is None and self._inventory.publisher.view(record).operation is None

    def lineage(self, reference: str) -> Lineage:
        """Return the instance's sources and the tree below it."""
        record = self._inventory.resolve(reference)
        forest = self._inventory.forest
        nodes: dict[str, LineageNode] = {}
        for instance_id in reversed((record.id, *forest.descendants(record.id))):
            one = self._inventory.instances[instance_id]
            below = tuple(nodes.pop(child) for child in forest.children.get(instance_id, ()))
            nodes[instance_id] = LineageNode(
                id=one.id, name=one.name, state=one.state, fork_kind=one.fork_kind, children=below
            )
        return Lineage(ancestors=forest.ancestors(record.id), tree=nodes[record.id])

    async def memory(self, reference: str, width: int) -> PageMapFold:
        """Return the page map of a uffd fork, folded to `width` cells."""
        record = self._inventory.resolve(reference)
        if not record.served_over_uffd or record.process is None:
            raise NotFoundError(
                f"{record.name}: it has no page map; a Running share_memory fork on the uffd backend has one"
            )
        try:
            return await asyncio.to_thread(_fold, self._inventory.layout.page_map(record.id), record, width)
        except FileNotFoundError as error:
            raise NotFoundError(f"{record.name}: its page map is gone with its VMM") from error

    async def machine(self, reference: str) -> MachineInfo:
        """Return what an instance's directory has of its memory and of its devices."""
        record = self._inventory.resolve(reference)
        return await asyncio.to_thread(machine_info, self._inventory.layout.instance(record.id), record)

    async def stats(self, reference: str) -> ResourceStats:
        """Return the last sample of an instance."""
        record = self._inventory.resolve(reference)
        pages = self._telemetry.statistics.get(record.id)
        rss = pages.rss_bytes if pages else 0
        cgroup = self._telemetry.cgroup_usage(record.id)
        return ResourceStats(
            instance_id=record.id,
            instance_name=record.name,
            allocated_memory_bytes=record.size_bytes,
            allocated_vcpus=record.vcpus,
            cpu_seconds=pages.cpu_seconds if pages else 0.0,
            memory_rss_bytes=rss,
            memory_vms_bytes=record.size_bytes if pages else 0,
            memory_utilization_ratio=rss / record.size_bytes,
            cgroup_memory_bytes=cgroup.memory_bytes if cgroup else None,
            cgroup_memory_max_bytes=cgroup.memory_max_bytes if cgroup else None,
            cgroup_pids=cgroup.pids if cgroup else None,
            pages=pages,
        )

    def log_file(self, reference: str, source: Literal["app", "vmm", "hypeman"]) -> Path:
        """Return the file that a log is in; it need not exist yet."""
        record = self._inventory.resolve(reference)
        if source == "hypeman":
            raise BadRequestError(
                f"{record.name}: there is no log of operations; ask for app or vmm", remedy=Remedy.READ_EVENTS
            )
        layout = self._inventory.layout
        return layout.console_log(record.id) if source == "app" else layout.vmm_log(record.id)


def _fold(path: Path, record: InstanceRecord, width: int) -> PageMapFold:
    with PageMapReader(path) as page_map:
        counters = page_map.counters()
        return PageMapFold(
            id=record.id,
            page_size=page_map.page_size,
            pages=page_map.page_count,
            cells=tuple(
                (cell.absent, cell.faulted, cell.fault_around, cell.prefetched, cell.zero + cell.removed)
                for cell in page_map.fold(width)
            ),
            latency_bounds_us=tuple(round(bound * 1e6) for bound in LATENCY_BOUNDS_SECONDS[:-1]),
            latency_counts=counters.latency_counts,
            fault_ms=round(counters.fault_seconds * 1e3, 3),
        )
