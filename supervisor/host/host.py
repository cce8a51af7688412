"""Orchestration: the one object that the API speaks to, and the only file that puts the others together."""

import asyncio
import logging
import os
from collections.abc import Coroutine, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, TypeVar

from supervisor.admission.controller import Admitting
from supervisor.concurrency.tasks import Background
from supervisor.errors import BadRequestError, NotFoundError
from supervisor.host import capabilities
from supervisor.host.event_bus import EventBus
from supervisor.images.catalog import ImageCatalog
from supervisor.models import (
    Activity,
    CheckpointRequest,
    CreateRequest,
    DeletionPlan,
    FanOutEstimate,
    FanOutRequest,
    FanOutResult,
    ForkRequest,
    HostSnapshot,
    HypervisorName,
    ImageInfo,
    Instance,
    Level,
    Lineage,
    LineageNode,
    PageMapFold,
    ResourceStats,
    State,
    SupervisorInfo,
    WaitResult,
)
from supervisor.operations.checkpoints import Checkpoints
from supervisor.operations.deletion import Deleting
from supervisor.operations.forks import Forking
from supervisor.operations.instances import Operations
from supervisor.operations.recovery import Adoption
from supervisor.operations.unpausing import RunningOn
from supervisor.runtime.huge_page_pool import HugePagePool
from supervisor.runtime.page_servers import PageServers
from supervisor.runtime.templates import Templates
from supervisor.runtime.vmms import Machines
from supervisor.settings import Settings
from supervisor.snapshots.layers import Layers
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord
from supervisor.store.registry import Registry
from supervisor.telemetry.sampler import Telemetry
from supervisor.uffd.handle import Policy
from supervisor.uffd.page_map import PageMapReader
from supervisor.vmm.hypervisor import Hypervisor, available, select_hypervisor
from supervisor.vmm.logs import CONSOLE_LOG, VMM_LOG
from supervisor.vmm.process import Exit

Outcome = TypeVar("Outcome")

LEVELS: dict[Level, int] = {"info": logging.INFO, "warning": logging.WARNING, "alarm": logging.ERROR}

_log = logging.getLogger(__name__)


class Host:
    """The VMs, templates and page servers of one data directory. References are ids, names or unique id prefixes."""

    def __init__(
        self, settings: Settings, hypervisor: Hypervisor, found: Mapping[HypervisorName, Hypervisor | str]
    ) -> None:
        self._settings = settings
        self._hypervisor = hypervisor
        self._found = found
        self._started_at = datetime.now(UTC)
        self._background = Background("a background task")
        self._verbs: set[asyncio.Task[Any]] = set()
        self.events = EventBus(self.snapshot)
        registry = Registry(settings.data_dir)
        self._inventory = Inventory(registry, self.events.publish)
        policy = Policy(
            fault_around_pages=settings.fault_around_pages,
            record_seconds=settings.record_seconds,
            record_quiet_seconds=settings.record_quiet_seconds,
        )
        data_dir, run_dir = settings.data_dir, settings.run_dir
        self._page_servers = PageServers(self._inventory, data_dir, run_dir, policy, self._report)
        self._layers = Layers(self._inventory, settings.max_layers, self._report)
        templates = Templates(self._inventory, data_dir, self._page_servers)
        usable = {name: one for name, one in found.items() if isinstance(one, Hypervisor)}
        huge_pages = HugePagePool()
        self._machines = Machines(
            usable, self._page_servers, huge_pages, registry.instances, run_dir, self._on_exit, self._on_paused
        )
        self._operations = Operations(
            self._inventory,
            self._machines,
            self._layers,
            templates,
            self._page_servers,
            hypervisor.name,
            self._report,
        )
        self._running_on = RunningOn(self._operations, self._machines, self._report)
        self._telemetry = Telemetry(
            self._inventory,
            self._page_servers,
            self.events.publish,
            self._operations.note_ready,
            self._report,
        )
        checkpoints = Checkpoints(self._inventory, self._operations, self._machines, self._layers)
        admitting = Admitting(self._inventory, data_dir, huge_pages, self._telemetry.private_bytes)
        self._forking = Forking(
            self._inventory,
            self._operations,
            self._machines,
            self._layers,
            templates,
            checkpoints,
            admitting,
            self._report,
        )
        self._adoption = Adoption(
            self._inventory,
            self._operations,
            self._machines,
            self._page_servers,
            self._running_on,
            data_dir,
            run_dir,
            self._report,
        )
        self._images = ImageCatalog(registry.images, usable, self._report)
        self._deleting = Deleting(self._inventory, self._operations, self._telemetry.private_bytes, self._report)

    @classmethod
    async def open(cls, settings: Settings) -> "Host":
        """Read the records, find again what an earlier supervisor left running, and begin to sample.

        Nothing is spawned that stays: a page server that was lost is replaced after `go_on`.
        Raises DependencyMissingError where the hypervisor that was asked for cannot run here.
        """
        hypervisor = await asyncio.to_thread(select_hypervisor, settings.hypervisor, settings.firecracker)
        found = await asyncio.to_thread(available, settings.firecracker)
        host = cls(settings, hypervisor, found)
        await host._begin()
        return host

    def go_on(self) -> None:
        """Have the page servers replaced that were lost while no supervisor ran."""
        self._page_servers.replace_lost()

    async def close(self) -> None:
        """Let go of everything; VMs, and the page servers that forks need, go on."""
        self._telemetry.stop()
        self._images.stop()
        await self._running_on.close()
        await asyncio.gather(*self._verbs, return_exceptions=True)
        await self._background.join()
        self.events.close()
        await self._machines.close()
        await self._page_servers.close()

    def snapshot(self) -> HostSnapshot:
        """Return the whole host as it is now."""
        inventory = self._inventory
        return HostSnapshot(
            supervisor=SupervisorInfo(
                pid=os.getpid(),
                version=metadata.version("forktui"),
                started_at=self._started_at,
                data_dir=str(self._settings.data_dir),
                hypervisor=self._hypervisor.name,
                hypervisor_version=self._hypervisor.version,
            ),
            instances=tuple(self.instances()),
            templates=tuple(inventory.view_template(template) for template in inventory.templates.values()),
            statistics=tuple(self._telemetry.statistics.values()),
            host=self._telemetry.host,
        )

    def instances(self, state: State | None = None) -> list[Instance]:
        """Return every instance, or those in one state; records that cannot be read are shown as Unknown."""
        views = [self._inventory.view(record) for record in self._inventory.instances.values()]
        views += [_unreadable(name, reason) for name, reason in self._inventory.unreadable.items()]
        return [view for view in views if state is None or view.state is state]

    def instance(self, reference: str) -> Instance:
        """Return one instance."""
        return self._inventory.view(self._inventory.resolve(reference))

    async def images(self) -> list[ImageInfo]:
        """Return every image, usable or with what is wrong with it."""
        return await self._images.images()

    async def create(self, request: CreateRequest) -> Instance:
        """Make a new instance: it boots, or is in Standby where its image is a snapshot."""
        record = await self._finish(self._operations.create(request))
        self._report("info", f"{record.name}: created from image {record.image} on {record.hypervisor}", record.id)
        return self._inventory.view(record)

    async def start(self, reference: str) -> Instance:
        """Boot a Stopped instance."""
        return self._done("started", await self._finish(self._operations.start(reference)))

    async def stop(self, reference: str) -> Instance:
        """End an instance's VMM."""
        return self._done("stopped", await self._finish(self._operations.stop(reference)))

    async def standby(self, reference: str) -> Instance:
        """Snapshot a Running instance and end its VMM."""
        return self._done("in Standby", await self._finish(self._operations.standby(reference)))

    async def restore(self, reference: str) -> Instance:
        """Run a Standby instance on."""
        return self._done("restored", await self._finish(self._operations.restore(reference)))

    async def detach(self, reference: str) -> Instance:
        """Let a share_memory fork go on without its source."""
        return self._done("detached from its source", await self._finish(self._operations.detach(reference)))

    async def fork(self, reference: str, request: ForkRequest) -> Instance:
        """Make one child."""
        return self._inventory.view(await self._finish(self._forking.fork(reference, request)))

    async def checkpoint(self, reference: str, request: CheckpointRequest) -> Instance:
        """Make a Standby child of a Running instance, which runs on."""
        return self._inventory.view(await self._finish(self._forking.checkpoint(reference, request)))

    async def fan_out(self, reference: str, request: FanOutRequest) -> FanOutResult:
        """Make many children."""
        return await self._finish(self._forking.fan_out(reference, request, self._inventory.view))

    async def fan_out_estimate(self, reference: str, request: FanOutRequest) -> FanOutEstimate:
        """Return how many children fit, and make none."""
        return await self._forking.estimate(reference, request)

    async def delete(self, reference: str, *, cascade: bool = False) -> None:
        """Remove an instance that no fork holds, or with `cascade` the whole tree from it down."""
        if cascade:
            await self._finish(self._deleting.delete_tree(reference))
        else:
            await self._finish(self._operations.delete(reference))

    async def deletion_plan(self, reference: str, *, cascade: bool = False) -> DeletionPlan:
        """Return what `delete` would do."""
        return await self._deleting.plan(reference, cascade=cascade)

    async def wait(self, reference: str, state: State, seconds: float) -> WaitResult:
        """Return when the instance is in `state`, or after `seconds`."""
        instance_id = self._inventory.resolve(reference).id
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            record = self._inventory.instances.get(instance_id)
            if record is None:
                raise NotFoundError(f"{reference}: deleted while it was waited for")
            if record.state is state:
                return WaitResult(state=state, timed_out=False)
            try:
                async with asyncio.timeout_at(deadline):
                    await self._inventory.changed()
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
        if not record.attached or record.memory_backend != "uffd" or record.process is None:
            raise NotFoundError(
                f"{record.name}: it has no page map; a Running share_memory fork on the uffd backend has one"
            )

        def fold() -> PageMapFold:
            with PageMapReader(self._page_servers.page_map(record.id)) as page_map:
                return PageMapFold(
                    id=record.id,
                    page_size=page_map.page_size,
                    pages=page_map.page_count,
                    cells=tuple(
                        (cell.absent, cell.faulted, cell.fault_around, cell.prefetched, cell.zero + cell.removed)
                        for cell in page_map.fold(width)
                    ),
                )

        try:
            return await asyncio.to_thread(fold)
        except FileNotFoundError as error:
            raise NotFoundError(f"{record.name}: its page map is gone with its VMM") from error

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
                f"{record.name}: there is no log of operations: GET /events streams them; ask for app or vmm"
            )
        return self._inventory.registry.directory(record.id) / (CONSOLE_LOG if source == "app" else VMM_LOG)

    def capabilities(self) -> dict[str, object]:
        """Return hypeman's Capabilities."""
        return capabilities.describe(metadata.version("forktui"), self._hypervisor.name, self._found)

    async def _begin(self) -> None:
        def prepare() -> None:
            self._inventory.registry.open()
            (self._settings.run_dir / "pages").mkdir(mode=0o750, exist_ok=True)
            self._inventory.load()

        await asyncio.to_thread(prepare)
        await self._layers.probe()
        await self._adoption.adopt()
        await self._page_servers.reconnect()
        for name, reason in self._inventory.unreadable.items():
            self._report("alarm", f"the record of {name} cannot be read: {reason}", None)
        if self._settings.firecracker is not None and isinstance(problem := self._found["firecracker"], str):
            self._report("warning", f"no VM runs on firecracker: {problem}", None)
        self._background.spawn(self._telemetry.run())
        self._background.spawn(self._images.watch())

    def _done(self, what: str, record: InstanceRecord) -> Instance:
        self._report("info", f"{record.name}: {what}", record.id)
        return self._inventory.view(record)

    def _on_exit(self, instance_id: str, exit_status: Exit) -> None:
        self._background.spawn(self._operations.note_exit(instance_id, exit_status))

    def _on_paused(self, instance_id: str) -> None:
        self._running_on.begin(instance_id)

    def _report(self, level: Level, message: str, instance_id: str | None) -> None:
        _log.log(LEVELS[level], message)
        self.events.publish(Activity(at=datetime.now(UTC), level=level, message=message, instance_id=instance_id))

    async def _finish(self, verb: Coroutine[None, None, Outcome]) -> Outcome:
        """Await a verb, which goes on to its end also when nobody waits for its answer any more."""
        task = asyncio.create_task(verb)
        self._verbs.add(task)
        task.add_done_callback(self._verbs.discard)
        return await asyncio.shield(task)


def _unreadable(name: str, reason: str) -> Instance:
    return Instance(
        id=name,
        name=name,
        image="",
        state=State.UNKNOWN,
        state_error=reason,
        created_at=datetime.fromtimestamp(0, UTC),
        hypervisor="embedded",
        size="0MB",
        size_bytes=0,
        vcpus=0,
        has_snapshot=False,
        fork_count=0,
        mem_locked=False,
    )
