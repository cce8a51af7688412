"""The VMMs of the instances that run: booted, loaded from a snapshot, snapshotted, ended, adopted."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from supervisor.concurrency.progress import interruptible, step
from supervisor.concurrency.tasks import beside, to_its_end
from supervisor.errors import DependencyMissingError, InvalidStateError, VmmError
from supervisor.images.readiness import check_machine
from supervisor.jails.jails import Jails
from supervisor.models import HypervisorName
from supervisor.remedies import Remedy
from supervisor.runtime import known_faults
from supervisor.runtime.attaching import Attaching
from supervisor.runtime.consoles import Consoles
from supervisor.runtime.guest_metadata import for_mmds, resume
from supervisor.runtime.huge_page_pool import HugePagePool
from supervisor.runtime.own_processes import is_vmm, lives
from supervisor.runtime.page_server_loss import PageServerLostError, while_serving
from supervisor.runtime.page_servers import PageServers
from supervisor.runtime.spawning import Spawning
from supervisor.runtime.stopwatch import Stopwatch
from supervisor.snapshots.examination import check_state
from supervisor.snapshots.layer_checks import check_layers
from supervisor.snapshots.layer_files import sweep
from supervisor.snapshots.layers import all_names, next_snapshot, own_snapshot
from supervisor.snapshots.written_files import Written
from supervisor.store.layout import VM_JSON, Layout, layer, partial, state_file
from supervisor.store.records import InstanceRecord, ProcessIdentity, SnapshotFiles, StartedVmm
from supervisor.system.unix_sockets import remove_file
from supervisor.uffd.handle import PageServer
from supervisor.uffd.map_files import remove_page_map
from supervisor.vmm.api_client import PAUSE, QUICK
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor, loads, snapshot_version, userfaultfd_problem
from supervisor.vmm.process import Exit


class LostSocket(NamedTuple):
    """Where a VMM's socket was, and whether the VMM can be asked all the same."""

    path: Path
    reachable: bool


class Vmms:
    """One VMM per instance that runs."""

    def __init__(
        self,
        hypervisors: Mapping[HypervisorName, Hypervisor | str],
        page_servers: PageServers,
        huge_pages: HugePagePool,
        consoles: Consoles,
        layout: Layout,
        jails: Jails,
        on_exit: Callable[[str, Exit], None],
        on_paused: Callable[[str], None],
    ) -> None:
        """`hypervisors` has each, or why it cannot run here.

        `on_paused` is told of an instance whose VM may have stayed paused.
        """
        self._spawning = Spawning(hypervisors, huge_pages, consoles, layout, jails)
        self._page_servers = page_servers
        self._layout = layout
        self._jails = jails
        self._on_exit = on_exit
        self._on_paused = on_paused
        self._running: dict[str, Vmm] = {}

    def hypervisor(self, name: HypervisorName) -> Hypervisor:
        """Return a hypervisor that can run here; DependencyMissingError where it cannot."""
        return self._spawning.hypervisor(name)

    def check_userfaultfd(self, name: HypervisorName) -> None:
        """Raise DependencyMissingError where this hypervisor may not have its memory served by a page server here."""
        problem = userfaultfd_problem(self.hypervisor(name))
        if problem is not None:
            raise DependencyMissingError(
                f"{name} cannot have a snapshot's memory from a page server here: {problem}",
                remedy=Remedy.FILE_BACKEND,
            )

    async def check_loads(self, record: InstanceRecord) -> None:
        """Raise DependencyMissingError where the VMM that would be started now cannot load the instance's snapshot."""
        if record.snapshot is None:
            return
        hypervisor, its = self.hypervisor(record.hypervisor), record.snapshot.snapshot_version
        program = hypervisor.command[0]
        ours = await asyncio.to_thread(snapshot_version, hypervisor)
        if not loads(hypervisor.name, ours, its):
            raise DependencyMissingError(
                f"{record.name}: its snapshot has version {its}, and {program} loads {ours}: start the supervisor with "
                "--firecracker and one that loads it",
                remedy=Remedy.BOOT_ANEW,
            )
        known_faults.check_known_faults(record, hypervisor.firecracker_version, record.devices or ())

    async def housed(self, record: InstanceRecord, directory: Path) -> InstanceRecord:
        """Return the record of an instance that is about to be started, with whose its VMM is to be.

        It is written down before that is spawned; its machine is that of a `directory`. Raises DependencyMissingError
        where it has to be in a jail and cannot, InsufficientResourcesError without a uid.
        """
        return await asyncio.to_thread(self._jails.housed, record, directory)

    def written(self, record: InstanceRecord) -> Written:
        """Return where the VMM of an instance writes its snapshots, and whose they are."""
        return self._jails.written(record)

    def runs(self, instance_id: str) -> bool:
        """Return whether the instance has a VMM."""
        return instance_id in self._running

    def exited(self, instance_id: str) -> "asyncio.Future[Exit] | None":
        """Return what tells of the end of the instance's VMM; None where it has none."""
        vmm = self._running.get(instance_id)
        return None if vmm is None else vmm.exited

    async def check_machine(self, record: InstanceRecord, snapshot: SnapshotFiles | None) -> None:
        """Raise MachineFileError where a file is gone that a VMM opens to boot, or changed since this snapshot.

        LayerError where it is the snapshot's state-file.
        """
        directory = self._layout.instance(record.id)
        await asyncio.to_thread(check_machine, record.name, directory, snapshot)
        if snapshot is not None:
            await asyncio.to_thread(check_state, directory, record)

    async def boot(self, record: InstanceRecord, watch: Stopwatch) -> StartedVmm:
        """Start a VMM with the instance's vm.json; DependencyMissingError where its version may not run that."""
        await self.check_machine(record, None)
        vm_json = self._layout.instance(record.id) / VM_JSON
        await asyncio.to_thread(known_faults.check_boots, record, self.hypervisor(record.hypervisor), vm_json)
        step("spawn")
        with watch.phase("boot"), interruptible():
            vmm = await self._spawning.spawn(record, VM_JSON)
            try:
                told = await self._spawning.started(record, vmm, await known_faults.version_of(record, vmm))
            except BaseException:
                await to_its_end(vmm.terminate())
                self._jails.clear(record.id)
                raise
        self._follow(record, vmm)
        return told

    async def load(self, record: InstanceRecord, watch: Stopwatch) -> StartedVmm:
        """Start a VMM, load the instance's snapshot into it with the record's memory backend, and resume it.

        The memory image has one layer, unless it comes through a page server. One that dies meanwhile costs one more
        try. On failure no VMM is left, and the error is raised.
        """
        await self.check_machine(record, own_snapshot(record))
        if record.template_id is None or not record.served_over_uffd:
            return await self._load_file(record, watch)
        try:
            return await self._load_uffd(record, record.template_id, watch)
        except PageServerLostError:
            watch.phases.clear()
            return await self._load_uffd(record, record.template_id, watch)

    async def _load_file(self, record: InstanceRecord, watch: Stopwatch) -> StartedVmm:
        snapshot = own_snapshot(record)
        (mem_file,) = snapshot.layers
        layers = [self._layout.instance(record.id) / mem_file]
        await asyncio.to_thread(check_layers, record.name, layers, snapshot.layer_marks)
        step("spawn")
        with watch.phase("spawn"), interruptible():
            vmm = await self._spawning.spawn(record, None)
        try:
            with interruptible():
                version = await known_faults.version_of(record, vmm)
                fields = known_faults.load_fields(record, version)
                mmds = await for_mmds(record, self._layout.instance(record.id))
                step("load")
                with watch.phase("load"):
                    await vmm.api.load_snapshot(snapshot.state, "File", mem_file, resume=not mmds, fields=fields)
                if mmds:
                    await resume(vmm, mmds, watch)
                told = await self._spawning.started(record, vmm, version)
        except BaseException:
            await to_its_end(self._abandon(record, vmm))
            raise
        self._follow(record, vmm)
        return told

    async def _load_uffd(self, record: InstanceRecord, template_id: str, watch: Stopwatch) -> StartedVmm:
        step("page server")
        with watch.phase("prepare"), interruptible():
            server = await self._page_servers.serving(template_id)
        records = self._page_servers.begin_recording(record)
        attaching = Attaching(server, record, self._layout, records=records)
        vmm = None
        step("spawn")
        try:
            async with while_serving(server):
                with watch.phase("spawn"), interruptible():
                    vmm = await self._spawning.spawn(record, None, attaching.attach)
                with interruptible():
                    told = await self._load_served(record, vmm, server, watch, attaching)
        except BaseException:
            await to_its_end(self._abandon(record, vmm))
            raise
        self._follow(record, vmm)
        return told

    async def _load_served(
        self, record: InstanceRecord, vmm: Vmm, server: PageServer, watch: Stopwatch, attaching: Attaching
    ) -> StartedVmm:
        """Load a snapshot through a page server and resume it; after its prefetch where that is to be."""
        state, listen, wait = own_snapshot(record).state, attaching.told, attaching.prefetch == "before_resume"
        version = await known_faults.version_of(record, vmm)
        fields = known_faults.load_fields(record, version)
        mmds = await for_mmds(record, self._layout.instance(record.id))
        step("load")
        async with beside(server.served(record.id)) as served:
            with watch.phase("load"):
                await vmm.api.load_snapshot(state, "Uffd", listen, resume=not (wait or mmds), fields=fields)
            if mmds and not wait:
                await resume(vmm, mmds, watch)
            step("prefetch")
            with watch.phase("prefetch"):
                await served
        remove_file(attaching.socket)
        if wait:
            await resume(vmm, mmds, watch)
        return await self._spawning.started(record, vmm, version)

    @contextlib.asynccontextmanager
    async def snapshot(self, record: InstanceRecord) -> AsyncIterator[SnapshotFiles]:
        """Pause the VM and write a snapshot under partial names, for the body to complete; the VM stays paused.

        Where that or the body fails, the VM runs on and the files are gone.
        """
        vmm = self._vmm(record.id)
        with interruptible():
            kind = await known_faults.snapshot_kind(record, vmm)
        files = next_snapshot(record, kind, self._spawning.snapshot_version(record, vmm))
        directory, written = self._layout.instance(record.id), self._jails.written(record)
        state, mem = files.state, files.layers[0]
        try:
            with interruptible():
                step("pause")
                await vmm.api.pause()
                # No earlier: until it answers it may be writing what is left of a snapshot that came to nothing.
                await asyncio.to_thread(written.make_way, directory, (state, mem))
                step("snapshot")
                await vmm.api.create_snapshot(partial(Path(state)).name, partial(Path(mem)).name, kind)
            yield files
        except BaseException:
            if await asyncio.shield(self.run_on(record.id)):
                await asyncio.shield(asyncio.to_thread(written.remove, directory, (state, mem)))
            raise

    async def run_on(self, instance_id: str) -> bool:
        """Let a VM run on whose snapshot came to nothing; False where its VMM does not answer, which it may yet."""
        try:
            await self.resume(instance_id, seconds=QUICK)
            return True
        except VmmError:
            self._on_paused(instance_id)
            return False

    async def sweep(self, record: InstanceRecord) -> None:
        """Remove what snapshots that came to nothing have left of an instance, whose VMM writes no more.

        While it writes it holds the file's lock (ext4_buffered_write_iter in fs/ext4/file.c), and where it waits for a
        page meanwhile, so does unlink(2), uninterruptibly: who is to start its page server must not be who waits.
        """
        directory, kept = self._layout.instance(record.id), all_names(record.snapshot)
        await asyncio.to_thread(sweep, directory, kept)
        if self.runs(record.id):
            # The next one's: of those before it nothing was left. What else is there is the VMM's affair.
            names = {state_file(record.next_layer), layer(record.next_layer)}
            await asyncio.to_thread(self._jails.written(record).remove, directory, names.difference(kept))

    async def resume(self, instance_id: str, *, seconds: float = PAUSE) -> None:
        """Let a paused VM run on; VmmError when that has not been answered after `seconds`."""
        step("resume")
        await self._vmm(instance_id).api.resume(seconds)

    def kill(self, instance_id: str) -> None:
        """End the instance's VMM, if it has one, without waiting: what is asked of it fails at once."""
        vmm = self._running.get(instance_id)
        if vmm is not None:
            vmm.kill()

    def check_reachable(self, record: InstanceRecord) -> None:
        """Raise InvalidStateError where the VMM cannot be asked for anything: its socket is gone."""
        vmm = self._vmm(record.id)
        if not vmm.reachable:
            raise InvalidStateError(
                f"{record.name}: its VMM cannot be asked for a snapshot: its API socket {vmm.api_socket} is gone; the "
                "VM runs on, and stop and delete end it"
            )

    def out_of_place(self) -> dict[str, LostSocket]:
        """Return the instances whose VMMs have lost their sockets."""
        lost = ((instance_id, vmm) for instance_id, vmm in self._running.items() if not vmm.socket_in_place)
        return {instance_id: LostSocket(vmm.api_socket, vmm.reachable) for instance_id, vmm in lost}

    async def terminate(self, record: InstanceRecord) -> None:
        """End the instance's VMM, if it has one, and forget it."""
        vmm = self._running.pop(record.id, None)
        step("terminate")
        if vmm is not None:
            try:
                await vmm.terminate()
            except VmmError:
                # It is still there, and its end is to be heard of.
                self._running[record.id] = vmm
                raise
        step("release")
        if record.attached:
            await self._page_servers.release(record)
        self._clear_run_files(record.id)

    async def adopt(self, record: InstanceRecord) -> bool:
        """Take over the VMM that an earlier supervisor left running; False where it is gone.

        VmmError where another process answers in its place: it is taken over, and can be ended.
        """
        if record.process is None:
            return False
        if not await asyncio.to_thread(self._is_there, record, record.process):
            self._clear_run_files(record.id)
            return False
        vmm = await self._spawning.adopt(record, record.process)
        if vmm is None:
            self._clear_run_files(record.id)
            return False
        self._follow(record, vmm)
        vmm.check_listener()
        return True

    async def close(self) -> None:
        """Let go of every VMM; they go on."""
        running, self._running = self._running, {}
        for vmm in running.values():
            await vmm.disconnect()

    def _is_there(self, record: InstanceRecord, process: ProcessIdentity) -> bool:
        """Return whether an instance's process is there; one in a jail also where somebody has removed that. Blocks."""
        if is_vmm(process, self._layout, record.id):
            return True
        return record.jail_uid is not None and lives(process) and self._jails.has(record.id, process.pid)

    def _vmm(self, instance_id: str) -> Vmm:
        vmm = self._running.get(instance_id)
        if vmm is None:
            raise VmmError(f"{instance_id}: its VMM has ended; look at its log")
        return vmm

    def _follow(self, record: InstanceRecord, vmm: Vmm) -> None:
        self._running[record.id] = vmm
        vmm.exited.add_done_callback(lambda future: self._exited(record.id, vmm, future))

    def _exited(self, instance_id: str, vmm: Vmm, future: "asyncio.Future[Exit]") -> None:
        """Report an exit that nobody asked for: one of a VMM that is still followed."""
        if self._running.get(instance_id) is vmm and not future.cancelled():
            del self._running[instance_id]
            self._clear_run_files(instance_id)
            self._on_exit(instance_id, future.result())

    async def _abandon(self, record: InstanceRecord, vmm: Vmm | None) -> None:
        if vmm is not None:
            await vmm.terminate()
        await self._page_servers.release(record)
        self._clear_run_files(record.id)

    def _clear_run_files(self, instance_id: str) -> None:
        remove_file(self._layout.api_socket(instance_id))
        remove_file(self._layout.uffd_socket(instance_id))
        remove_page_map(self._layout.page_map(instance_id))
        self._jails.clear(instance_id)
