"""What the verbs are made of: one instance, held by the caller, brought from one state to another, or not at all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from supervisor.concurrency.progress import step
from supervisor.consoles.rotation import end_of
from supervisor.errors import InvalidStateError, StorageError, VmmError
from supervisor.images.builtin_image import announces_ready
from supervisor.images.machine_files import bootable
from supervisor.models import ExitReason, LetGo, State
from supervisor.models.base import Report
from supervisor.models.readiness import on_later_load
from supervisor.operations.readying import Readying
from supervisor.rules.firecracker_versions import NO_CLOCK
from supervisor.rules.lifecycle import Intent, named
from supervisor.runtime.page_servers import PageServers
from supervisor.runtime.stopwatch import Stopwatch
from supervisor.runtime.vmms import Vmms
from supervisor.snapshots.layers import Layers, own_snapshot
from supervisor.store.inventory import Inventory
from supervisor.store.layout import staged
from supervisor.store.records import InstanceRecord, StartedVmm, let_go, running, stopped
from supervisor.store.registry import nothing_more

HOLDS_NO_LOCK: Final[Mapping[LetGo, str]] = {
    "detached": "detached, it has all of its memory",
    "restored": "restored from its own standby, it has a memory file of its own",
    "booted": "booted anew, it has no memory of its source",
}


class Transitions:
    """Each is done, or the instance is as it was."""

    def __init__(
        self,
        inventory: Inventory,
        vmms: Vmms,
        layers: Layers,
        page_servers: PageServers,
        readying: Readying,
        report: Report,
    ) -> None:
        self._inventory = inventory
        self._vmms = vmms
        self._layers = layers
        self._page_servers = page_servers
        self._readying = readying
        self._report = report
        self._without_clock: set[str] = set()
        """Templates whose state has no time to set a clock by."""

    async def add(
        self,
        record: InstanceRecord,
        populate: Callable[[Path], None],
        place: Callable[[Callable[[], None]], Awaitable[None]],
    ) -> InstanceRecord:
        """Make a new instance with the files that `populate` puts in its directory; NameConflictError for its name.

        `place` has that done, in a thread of its own. Where it fails nothing of the instance is left.
        """
        registry = self._inventory.registry
        with self._inventory.reserved(record.name, record.id):
            try:
                await place(partial(registry.stage_instance, record.id, populate))
                if record.intent is not None:
                    record = await self._vmms.housed(record, staged(self._inventory.layout.instance(record.id)))
                return await self._inventory.add(record, nothing_more)
            except BaseException:
                await asyncio.shield(asyncio.to_thread(registry.unstage_instance, record.id))
                raise

    @contextlib.asynccontextmanager
    async def intending(self, record: InstanceRecord, intent: Intent) -> AsyncIterator[InstanceRecord]:
        """Write down what the body is about to do; where it fails that is taken back, as far as the disk lets."""
        record = await self._vmms.housed(record, self._inventory.layout.instance(record.id))
        intending = await self._inventory.save(record.model_copy(update={"intent": intent}))
        try:
            yield intending
        except BaseException:
            present = self._inventory.instances[record.id]
            with contextlib.suppress(StorageError):
                await asyncio.shield(self._inventory.save(present.model_copy(update={"intent": None})))
            raise

    async def boot(self, record: InstanceRecord) -> InstanceRecord:
        """Bring a Created or Stopped instance to Running by its vm.json, over Initializing where its guest tells.

        A fork lets go of its source by that: it has no memory of it.
        """
        if not await asyncio.to_thread(bootable, self._inventory.layout.instance(record.id)):
            raise InvalidStateError(
                f"{record.name}: it cannot boot: its image {record.image} is a snapshot without vm.json; "
                "make another instance of the image, or put a vm.json into it"
            )
        # Where the disk did not take that it was stopped, its snapshot is there yet.
        await self._vmms.sweep(record)
        watch = Stopwatch()
        offset = self._console_end(record.id)
        vmm = await self._vmms.boot(record, watch)
        state = State.INITIALIZING if announces_ready(record.image) else State.RUNNING
        cold = let_go(record, "booted").model_copy(update={"attached": False, "memory_backend": None})
        return await self._save_running(running(cold, state, vmm, tuple(watch.phases), offset, record.ready_on_boot))

    async def load(self, record: InstanceRecord) -> InstanceRecord:
        """Bring a Standby instance to Running by its snapshot; on failure it is in Standby as before.

        A fork whose snapshot is its own, in one file, lets go of its source by that.
        """
        watch = Stopwatch()
        if record.memory_backend == "file" and len(own_snapshot(record).layers) > 1:
            with watch.phase("flatten"):
                record = await self._layers.flatten(record)
        offset = self._console_end(record.id)
        vmm = await self._load(record, watch)
        own = record if record.attached else let_go(record, "restored")
        later = on_later_load(record.ready_on_load)
        whole = own.model_copy(update={"snapshot_unfinished": False, "ready_on_load": later})
        phases, readiness = tuple(watch.phases), record.ready_on_load
        loaded = await self._save_running(running(whole, State.RUNNING, vmm, phases, offset, readiness))
        await self._page_servers.confirm(loaded)
        return loaded

    async def _load(self, record: InstanceRecord, watch: Stopwatch) -> StartedVmm:
        """Load a snapshot with the guest's clock set, or as it is where the snapshot has nothing to set it by."""
        before = len(watch.phases)
        if record.template_id is None or record.template_id not in self._without_clock:
            try:
                return await self._vmms.load(record.model_copy(update={"clock_set": True}), watch)
            except VmmError as error:
                if NO_CLOCK not in error.message:
                    raise
            if record.template_id is not None:
                self._without_clock.add(record.template_id)
            del watch.phases[before:]
        return await self._vmms.load(record.model_copy(update={"clock_set": False}), watch)

    async def drop_snapshot(self, record: InstanceRecord) -> InstanceRecord:
        """Bring a Standby instance to Stopped."""
        return await self._settled(stopped(record, None, "made without its source's memory", None))

    async def end(self, record: InstanceRecord) -> InstanceRecord:
        """Bring an instance to Stopped on request."""
        await self._vmms.terminate(record)
        return await self.ended(record, 0, "stopped on request", "stopped")

    async def ended(
        self, record: InstanceRecord, code: int | None, message: str, reason: ExitReason, *, died: bool = False
    ) -> InstanceRecord:
        """Bring an instance whose VMM is gone to Stopped, whether or not the disk takes it.

        It has `died` where nobody asked for that.
        """
        ended = stopped(record, code, message, reason, died=died)
        try:
            return await self._settled(ended)
        except StorageError as error:
            return self._unwritten(ended, error)

    async def settle(self, record: InstanceRecord) -> InstanceRecord:
        """Write a change that has happened already, if the disk takes it."""
        try:
            return await self._inventory.save(record)
        except StorageError as error:
            return self._unwritten(record, error)

    def tell_let_go(self, before: InstanceRecord, after: InstanceRecord) -> None:
        """Say that a fork has let go of its source's lock, where it has, and who holds that yet."""
        if after.let_go is None or before.fork_kind == after.fork_kind:
            return
        source_id = after.source_id or ""
        source, holders = self._inventory.instances.get(source_id), self._inventory.forest.holder_names(source_id)
        left = f"mem_locked by {named(holders)}" if holders else "free"
        told = f"{HOLDS_NO_LOCK[after.let_go]}; {source.name if source else source_id} is {left}"
        self._report("info", f"{after.name}: holds no lock: {told}", after.id)

    async def discard(self, record: InstanceRecord) -> None:
        """End whatever runs of an instance and remove it; on failure it is as it was."""
        registry = self._inventory.registry
        step("mark deleted")
        await asyncio.to_thread(registry.mark_deleted, record.id)
        try:
            await self._vmms.terminate(record)
        except VmmError:
            await asyncio.to_thread(registry.unmark_deleted, record.id)
            raise
        await self._inventory.remove(record)

    def _console_end(self, instance_id: str) -> int:
        """Return the position after all that the guest has printed: where what comes next begins.

        0 where something else is in the place of its console.
        """
        try:
            return end_of(self._inventory.layout.console_log(instance_id))
        except OSError:
            return 0

    async def _save_running(self, record: InstanceRecord) -> InstanceRecord:
        """Write that an instance has a VMM now, or end that again; whoever lets go of its source by that says so."""
        before = self._inventory.instances[record.id]
        try:
            saved = await self._inventory.save(record)
        except BaseException:
            await asyncio.shield(self._vmms.terminate(record))
            raise
        self.tell_let_go(before, saved)
        self._readying.follow(saved)
        return saved

    async def _settled(self, record: InstanceRecord) -> InstanceRecord:
        """Write that an instance without a VMM is Stopped; its snapshot goes once that is done."""
        saved = await self._inventory.save(record)
        await self._vmms.sweep(saved)
        return saved

    def _unwritten(self, record: InstanceRecord, error: StorageError) -> InstanceRecord:
        self._report("alarm", f"{record.name}: it is {record.state}, and its record says otherwise: {error}", record.id)
        return self._inventory.set_unsaved(record)
