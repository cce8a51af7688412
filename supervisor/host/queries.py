"""What can be asked of a host without changing it."""

import asyncio
import os
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Literal

from supervisor.errors import BadRequestError, NotFoundError
from supervisor.images.machine_info import machine_info
from supervisor.models import (
    HostSnapshot,
    Instance,
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
        firecracker_problem: str | None,
    ) -> None:
        self._inventory = inventory
        self._telemetry = telemetry
        self._hypervisor = hypervisor
        self._fan_outs = fan_outs
        self._firecracker_problem = firecracker_problem
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

    async def wait(self, reference: str, state: State, seconds: float) -> WaitResult:
        """Return when the instance is in `state`, or after `seconds`."""
        found = self._inventory.resolve(reference)
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            record = self._inventory.instances.get(found.id)
            if record is None:
                raise NotFoundError(f"{found.name}: deleted while it was waited for")
            if record.state is state:
                return WaitResult(state=state, timed_out=False)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._inventory.publisher.changed()
            except TimeoutError:
                return WaitResult(state=record.state, timed_out=True)

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
        return ResourceStats(
            instance_id=record.id,
            instance_name=record.name,
            allocated_memory_bytes=record.size_bytes,
            allocated_vcpus=record.vcpus,
            cpu_seconds=pages.cpu_seconds if pages else 0.0,
            memory_rss_bytes=rss,
            memory_vms_bytes=record.size_bytes if pages else 0,
            memory_utilization_ratio=rss / record.size_bytes,
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
