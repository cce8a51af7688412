"""The verbs on one instance, one at a time for each instance."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from supervisor.concurrency import progress
from supervisor.errors import InvalidStateError, NotFoundError, PageServerError, VmmError
from supervisor.images import boot_image, snapshot_image
from supervisor.images.memory_size import parse_size
from supervisor.images.snapshot_image import is_snapshot
from supervisor.models import CreateRequest, HypervisorName, Level, State
from supervisor.models.base import MIB
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import RUNNING, Intent, Verb
from supervisor.runtime.page_servers import PageServers
from supervisor.runtime.templates import Templates
from supervisor.runtime.vmms import Machines, Stopwatch
from supervisor.snapshots.layer_files import remove
from supervisor.snapshots.layers import Layers, all_names, own_snapshot, snapshot_type
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord, stopped
from supervisor.store.registry import StorageError, new_id
from supervisor.uffd.huge_pages import SMALL_PAGE_BYTES
from supervisor.vmm.process import Exit


class Operations:
    """Create, start, stop, standby, restore, delete: each is done, or the instance is as it was."""

    def __init__(
        self,
        inventory: Inventory,
        machines: Machines,
        layers: Layers,
        templates: Templates,
        page_servers: PageServers,
        default_hypervisor: HypervisorName,
        report: Callable[[Level, str, str | None], None],
    ) -> None:
        self._inventory = inventory
        self._machines = machines
        self._layers = layers
        self._templates = templates
        self._page_servers = page_servers
        self._default_hypervisor = default_hypervisor
        self._report = report
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    @contextlib.asynccontextmanager
    async def hold(self, reference: str, verb: Verb) -> AsyncIterator[InstanceRecord]:
        """Hold one instance for a verb; waits for the verb that holds it now."""
        instance_id = self._inventory.resolve(reference).id
        async with self._locks[instance_id]:
            record = self._inventory.instances.get(instance_id)
            if record is None:
                raise NotFoundError(f"{reference}: deleted while {verb} waited for it")
            with progress.operation(verb) as operation, self._inventory.showing(instance_id, operation):
                yield record

    @contextlib.asynccontextmanager
    async def hold_new(self, instance_id: str, verb: Verb) -> AsyncIterator[None]:
        """Hold an instance that is about to be made: nobody else gets it before it is what it is to become."""
        async with self._locks[instance_id]:
            try:
                with progress.operation(verb) as operation, self._inventory.showing(instance_id, operation):
                    yield
            finally:
                if instance_id not in self._inventory.instances:
                    self._locks.pop(instance_id, None)

    async def create(self, request: CreateRequest) -> InstanceRecord:
        """Boot a new instance of an image, or leave one of a snapshot in Standby; on failure nothing of it is left."""
        directory = self._inventory.registry.images / request.image
        if boot_image.is_name(request.image) and await asyncio.to_thread(is_snapshot, directory):
            return await self._create_standby(request, directory)
        hypervisor = request.hypervisor or self._default_hypervisor
        if hypervisor == "auto":
            hypervisor = self._default_hypervisor
        self._machines.hypervisor(hypervisor)
        image = await asyncio.to_thread(boot_image.load_image, self._inventory.registry.images, request.image)
        boot_image.check_hypervisor(image, hypervisor)
        machine = image.config.machine_config
        size = parse_size(request.size or f"{machine.mem_size_mib}MB")
        vcpus = request.vcpus or machine.vcpu_count
        record = self._created(request, hypervisor, size, vcpus, machine.page_size)

        def populate(directory: Path) -> None:
            boot_image.prepare(
                image,
                directory,
                memory_mib=size // MIB,
                vcpus=vcpus,
                boot_args_extra=request.cmd,
                track_dirty_pages=record.track_dirty_pages,
            )

        async with self.hold_new(record.id, Verb.CREATE):
            await self._add(record, populate)
            try:
                return await self.boot(record)
            except BaseException:
                await asyncio.shield(self.discard(record))
                raise

    async def _create_standby(self, request: CreateRequest, directory: Path) -> InstanceRecord:
        image = await asyncio.to_thread(snapshot_image.load_snapshot, directory)
        chosen = request.hypervisor or "auto"
        hypervisor = self._machines.hypervisor(image.hypervisor if chosen == "auto" else chosen)
        snapshot_image.check_snapshot(image, hypervisor)
        snapshot_image.check_request(image, request)
        page_size = image.config.machine_config.page_size if image.config else SMALL_PAGE_BYTES
        created = self._created(request, image.hypervisor, image.size_bytes, image.vcpus, page_size)
        standby = {"state": State.STANDBY, "memory_backend": "file", "next_layer": 1, "intent": None}
        files = snapshot_image.snapshot_files(image)
        record = created.model_copy(update={**standby, "snapshot": files, "stopped_at": created.created_at})
        await self._add(record, partial(snapshot_image.place_snapshot, image, files, record.track_dirty_pages))
        return record

    async def _add(self, record: InstanceRecord, populate: Callable[[Path], None]) -> None:
        self._inventory.reserve(record.name, record.id)
        try:
            await self._inventory.add(record, populate)
        except BaseException:
            self._inventory.give_back(record.name, record.id)
            raise

    async def start(self, reference: str) -> InstanceRecord:
        """Boot a Stopped instance from its vm.json."""
        async with self.hold(reference, Verb.START) as record:
            self.check(Verb.START, record)
            async with self._intending(record, "start") as starting:
                return await self.boot(starting)

    async def stop(self, reference: str) -> InstanceRecord:
        """End an instance's VMM; its memory is lost."""
        async with self.hold(reference, Verb.STOP) as record:
            self.check(Verb.STOP, record)
            return await self.end(record)

    async def standby(self, reference: str) -> InstanceRecord:
        """Snapshot a Running instance and end its VMM."""
        async with self.hold(reference, Verb.STANDBY) as record:
            self.check(Verb.STANDBY, record)
            return await self.suspend(record)

    async def restore(self, reference: str) -> InstanceRecord:
        """Run a Standby instance on from its snapshot; un-promotes it, since no fork holds it."""
        async with self.hold(reference, Verb.RESTORE) as record:
            self.check(Verb.RESTORE, record)
            async with self._intending(record, "restore") as restoring:
                return await self.resume(restoring)

    async def detach(self, reference: str) -> InstanceRecord:
        """Let a share_memory fork go on by itself, and release its share of its source's lock; the guest never stops.

        A uffd fork that runs gets all of its pages first. Whatever fails before the record is written changes nothing.
        """
        async with self.hold(reference, Verb.DETACH) as record:
            lifecycle.check_detach(record.name, record.state, record.fork_kind)
            served = record.process is not None and record.attached and record.memory_backend == "uffd"
            if served:
                try:
                    await self._page_servers.populate(record)
                except PageServerError as error:
                    raise PageServerError(
                        f"{record.name}: detach abandoned, it is as it was: {error.message}; ask again"
                    ) from error
            free: dict[str, object] = {"fork_kind": "copy", "template_id": None, "attached": False}
            if record.process is not None:
                free |= {"memory_backend": None}
                if snapshot_type(record) == "Full":
                    # Only a diff layer would need the snapshot that it came from: its directory has names of its own.
                    free |= {"snapshot": None}
            elif record.state is State.STANDBY:
                # Its directory has names of its own for the layers.
                free |= {"memory_backend": "file"}
            detached = await self._inventory.detach(record.model_copy(update=free))
            if served:
                await self._page_servers.release(record)
                self._page_servers.page_map(record.id).unlink(missing_ok=True)
            if detached.snapshot is None:
                directory = self._inventory.registry.directory(record.id)
                await asyncio.to_thread(remove, directory, all_names(record.snapshot))
            return detached

    async def delete(self, reference: str, *, childless: bool = False) -> None:
        """Remove an instance that no fork holds, whatever its state; with `childless` also no copy may be below it."""
        async with self.hold(reference, Verb.DELETE) as record:
            self.check(Verb.DELETE, record)
            if childless and (below := self._inventory.forest.children.get(record.id)):
                newest = self._inventory.instances[below[-1]].name
                raise InvalidStateError(f"{record.name}: delete refused: {newest} was forked from it meanwhile")
            await self._templates.unpromote(record.id)
            await self.discard(record)
        self._locks.pop(record.id, None)
        self._report("info", f"{record.name}: deleted", record.id)

    async def suspend(self, record: InstanceRecord) -> InstanceRecord:
        """Bring a Running instance, held by the caller, to Standby; on failure it runs on."""
        await self.begin_snapshot(record)
        files = await self._machines.snapshot(record)
        changes = {
            "state": State.STANDBY,
            "attached": False,
            "memory_backend": "file",
            "stopped_at": datetime.now(UTC),
        }
        try:
            standby = await self._layers.keep(record, files, changes)
        except BaseException:
            await self._machines.run_on(record.id)
            raise
        await self._machines.terminate(record)
        standby = await self.settle(standby.model_copy(update={"process": None}))
        return await self._layers.compact(standby)

    async def begin_snapshot(self, record: InstanceRecord) -> None:
        """Write down that a snapshot of a Running instance, held by the caller, is about to be made.

        Unless that one is kept the next is whole: the dirty log may have been reset for a layer that is lost.
        """
        await self._inventory.save(record.model_copy(update={"snapshot_unfinished": True}))

    async def resume(self, record: InstanceRecord) -> InstanceRecord:
        """Bring a Standby instance, held by the caller, to Running; on failure it is in Standby as before."""
        await self._machines.check_loads(record)
        lifecycle.check_backend(Verb.RESTORE, record.name, record.huge_pages > 0, record.memory_backend)
        await self._templates.unpromote(record.id)
        watch = Stopwatch()
        if record.memory_backend == "file" and len(own_snapshot(record).layers) > 1:
            with watch.phase("flatten"):
                record = await self._layers.flatten(record)
        offset = self._machines.console_offset(record.id)
        process = await self._machines.load(record, watch)
        running = record.model_copy(
            update={
                "state": State.RUNNING,
                "process": process,
                "phases": tuple(watch.phases),
                "started_at": datetime.now(UTC),
                "stopped_at": None,
                "exit_code": None,
                "exit_message": None,
                "console_offset": offset,
                "snapshot_unfinished": False,
                "intent": None,
            }
        )
        await self._keep_running(running)
        await self._page_servers.confirm(running)
        return running

    async def drop_snapshot(self, record: InstanceRecord) -> InstanceRecord:
        """Bring a Standby instance, held by the caller, to Stopped."""
        return await self._stopped(record, None, "made without its source's memory")

    async def end(self, record: InstanceRecord) -> InstanceRecord:
        """Bring an instance, held by the caller, to Stopped on request."""
        await self._machines.terminate(record)
        return await self.ended(record, 0, "stopped on request")

    async def ended(self, record: InstanceRecord, code: int | None, message: str) -> InstanceRecord:
        """Bring an instance, held by the caller, whose VMM is gone to Stopped, whether or not the disk takes it."""
        try:
            return await self._stopped(record, code, message)
        except StorageError as error:
            return self._unwritten(stopped(record, code, message), error)

    async def settle(self, record: InstanceRecord) -> InstanceRecord:
        """Write a change that has happened already, if the disk takes it."""
        try:
            return await self._inventory.save(record)
        except StorageError as error:
            return self._unwritten(record, error)

    async def discard(self, record: InstanceRecord) -> None:
        """End whatever runs of an instance, held by the caller, and remove it; on failure it is as it was."""
        registry = self._inventory.registry
        progress.step("doom")
        await asyncio.to_thread(registry.doom_instance, record.id)
        try:
            await self._machines.terminate(record)
        except VmmError:
            await asyncio.to_thread(registry.reprieve_instance, record.id)
            raise
        await self._inventory.remove(record)

    async def note_exit(self, instance_id: str, exit_status: Exit) -> None:
        """Record that a VMM ended although nobody asked for it."""
        async with self._locks[instance_id]:
            record = self._inventory.instances.get(instance_id)
            if record is None or record.state not in RUNNING or self._machines.runs(instance_id):
                return
            if record.attached:
                await self._page_servers.release(record)
            await self.ended(record, exit_status.code, exit_status.text)
        self._report("alarm", f"{record.name}: its VMM ended: {exit_status.text}", instance_id)

    async def note_ready(self, instance_id: str) -> None:
        """Record that a guest has finished its boot."""
        async with self._locks[instance_id]:
            record = self._inventory.instances.get(instance_id)
            if record is not None and record.state is State.INITIALIZING:
                await self._inventory.save(record.model_copy(update={"state": State.RUNNING}))

    def check(self, verb: Verb, record: InstanceRecord) -> None:
        """Raise InvalidStateError unless the verb is allowed now."""
        lifecycle.check(verb, record.name, record.state, self._inventory.forest.holder_names(record.id))

    async def boot(self, record: InstanceRecord) -> InstanceRecord:
        """Boot an instance, held by the caller, from its vm.json."""
        directory = self._inventory.registry.directory(record.id)
        if not await asyncio.to_thread(boot_image.bootable, directory):
            raise InvalidStateError(
                f"{record.name}: it cannot boot: its image {record.image} is a snapshot without vm.json; "
                "make another instance of the image, or put a vm.json into it"
            )
        watch = Stopwatch()
        offset = self._machines.console_offset(record.id)
        process = await self._machines.boot(record, watch)
        booted = record.model_copy(
            update={
                "state": State.INITIALIZING if boot_image.announces_ready(record.image) else State.RUNNING,
                "process": process,
                "phases": tuple(watch.phases),
                "started_at": datetime.now(UTC),
                "stopped_at": None,
                "exit_code": None,
                "exit_message": None,
                "attached": False,
                "memory_backend": None,
                "console_offset": offset,
                "intent": None,
            }
        )
        return await self._keep_running(booted)

    @contextlib.asynccontextmanager
    async def _intending(self, record: InstanceRecord, intent: Intent) -> AsyncIterator[InstanceRecord]:
        """Write down what is about to be done; where it fails that is taken back, as far as the disk lets."""
        intending = await self._inventory.save(record.model_copy(update={"intent": intent}))
        try:
            yield intending
        except BaseException:
            present = self._inventory.instances[record.id]
            with contextlib.suppress(StorageError):
                await asyncio.shield(self._inventory.save(present.model_copy(update={"intent": None})))
            raise

    async def _keep_running(self, record: InstanceRecord) -> InstanceRecord:
        try:
            return await self._inventory.save(record)
        except BaseException:
            await asyncio.shield(self._machines.terminate(record))
            raise

    async def _stopped(self, record: InstanceRecord, code: int | None, message: str) -> InstanceRecord:
        """Bring an instance without a VMM to Stopped; its snapshot goes once that is written."""
        saved = await self._inventory.save(stopped(record, code, message))
        await asyncio.to_thread(remove, self._inventory.registry.directory(record.id), all_names(record.snapshot))
        return saved

    def _unwritten(self, record: InstanceRecord, error: StorageError) -> InstanceRecord:
        self._report("alarm", f"{record.name}: it is {record.state}, and its record says otherwise: {error}", record.id)
        return self._inventory.note(record)

    def _created(
        self, request: CreateRequest, hypervisor: HypervisorName, size_bytes: int, vcpus: int, page_size: int
    ) -> InstanceRecord:
        return InstanceRecord(
            id=new_id(),
            name=request.name,
            image=request.image,
            state=State.CREATED,
            hypervisor=hypervisor,
            size_bytes=size_bytes,
            page_size=page_size,
            vcpus=vcpus,
            created_at=datetime.now(UTC),
            track_dirty_pages=request.track_dirty_pages and self._layers.diff_layers,
            intent="create",
        )
