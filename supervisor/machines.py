"""The VMMs of the instances that run: booted, loaded from a snapshot, snapshotted, ended, adopted."""

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from supervisor.errors import DependencyMissingError, VmmError
from supervisor.models import HypervisorName, Phase
from supervisor.records import InstanceRecord, ProcessIdentity, SnapshotFiles
from supervisor.registry import sync_directory
from supervisor.templates import Templates, own_snapshot
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor, userfaultfd_problem
from supervisor.vmm.logs import CONSOLE_LOG
from supervisor.vmm.process import Exit


@dataclass
class Stopwatch:
    """Collects how long the phases of one operation took."""

    phases: list[Phase] = field(default_factory=list)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Time one phase; one that raises is not counted."""
        began = time.monotonic()
        yield
        self.phases.append(Phase(name=name, milliseconds=round((time.monotonic() - began) * 1e3, 3)))


class Machines:
    """One VMM per instance that runs."""

    def __init__(
        self,
        hypervisors: Mapping[HypervisorName, Hypervisor],
        templates: Templates,
        instances: Path,
        run_dir: Path,
        on_exit: Callable[[str, Exit], None],
    ) -> None:
        self._hypervisors = hypervisors
        self._templates = templates
        self._instances = instances
        self._run_dir = run_dir
        self._on_exit = on_exit
        self._running: dict[str, Vmm] = {}

    def page_map(self, instance_id: str) -> Path:
        """Return where a uffd fork's page map is."""
        return self._run_dir / "pages" / f"{instance_id}.map"

    def hypervisor(self, name: HypervisorName) -> Hypervisor:
        """Return a hypervisor that can run here; DependencyMissingError where it cannot."""
        found = self._hypervisors.get(name)
        if found is None:
            raise DependencyMissingError(
                f"{name} cannot run here; GET /capabilities says why, and {' and '.join(self._hypervisors)} can"
            )
        return found

    def check_userfaultfd(self, name: HypervisorName) -> None:
        """Raise DependencyMissingError where this hypervisor may not have its memory served by a page server here."""
        problem = userfaultfd_problem(self.hypervisor(name))
        if problem is not None:
            raise DependencyMissingError(f"{name} cannot load a snapshot with memory_backend=uffd here: {problem}")

    def runs(self, instance_id: str) -> bool:
        """Return whether the instance has a VMM."""
        return instance_id in self._running

    def console_offset(self, instance_id: str) -> int:
        """Return the present length of the console, in bytes: where what comes next begins."""
        try:
            return (self._instances / instance_id / CONSOLE_LOG).stat().st_size
        except FileNotFoundError:
            return 0

    async def boot(self, record: InstanceRecord, watch: Stopwatch) -> ProcessIdentity:
        """Start a VMM with the instance's vm.json."""
        with watch.phase("boot"):
            vmm = await self._spawn(record, "vm.json")
        return self._keep(record, vmm)

    async def load(self, record: InstanceRecord, watch: Stopwatch) -> ProcessIdentity:
        """Start a VMM, load the instance's snapshot into it with the record's memory backend, and resume it.

        On failure no VMM is left, and the error is raised.
        """
        snapshot = own_snapshot(record)
        uffd = record.memory_backend == "uffd"
        server = None
        if uffd and record.template_id is not None:
            with watch.phase("prepare"):
                server = await self._templates.page_server(record.template_id)
        with watch.phase("spawn"):
            vmm = await self._spawn(record, None)
        try:
            if server is None:
                with watch.phase("load"):
                    await vmm.api.load_snapshot(snapshot.state, "File", snapshot.layers[0], resume=True)
                return self._keep(record, vmm)
            wait = record.prefetch == "before_resume" and not record.record_hot_pages
            listen = self._run_dir / f"{record.id}.uffd"
            with watch.phase("load"):
                await server.attach(
                    record.id,
                    listen=listen,
                    page_map=self.page_map(record.id),
                    vmm_pid=vmm.pid,
                    prefetch="off" if record.record_hot_pages else record.prefetch,
                    record=record.record_hot_pages,
                )
                await vmm.api.load_snapshot(snapshot.state, "Uffd", str(listen), resume=not wait)
            with watch.phase("prefetch"):
                await server.served(record.id)
            if wait:
                with watch.phase("resume"):
                    await vmm.api.resume()
            return self._keep(record, vmm)
        except BaseException:
            await asyncio.shield(self._abandon(record, vmm))
            raise

    async def snapshot(self, record: InstanceRecord) -> SnapshotFiles:
        """Pause the VM and write a Full snapshot of it in new files; it stays paused.

        On failure the VM runs on and the partial files are gone.
        """
        vmm = self._vmm(record.id)
        number = record.next_layer
        files = SnapshotFiles(
            state=f"state.{number}",
            layers=(f"mem.{number}",),
            snapshot_version=self.hypervisor(record.hypervisor).snapshot_version,
        )
        directory = self._instances / record.id
        await vmm.api.pause()
        try:
            await vmm.api.create_snapshot(f"{files.state}.new", f"{files.layers[0]}.new")
            await asyncio.to_thread(_complete, directory, (files.state, *files.layers))
        except BaseException:
            for name in (files.state, *files.layers):
                (directory / f"{name}.new").unlink(missing_ok=True)
                (directory / name).unlink(missing_ok=True)
            with contextlib.suppress(VmmError):
                await vmm.api.resume()
            raise
        return files

    async def resume(self, instance_id: str) -> None:
        """Let a paused VM run on."""
        await self._vmm(instance_id).api.resume()

    async def terminate(self, record: InstanceRecord) -> None:
        """End the instance's VMM, if it has one, and forget it."""
        vmm = self._running.pop(record.id, None)
        if vmm is not None:
            await vmm.terminate()
        if record.attached:
            await self._templates.release(record)
        self._clear_run_files(record.id)

    async def adopt(self, record: InstanceRecord) -> bool:
        """Take over the VMM that an earlier supervisor left running; False where it is gone."""
        if record.process is None:
            return False
        vmm = await Vmm.adopt(
            instance_id=record.id,
            directory=self._instances / record.id,
            api_socket=self._api_socket(record.id),
            pid=record.process.pid,
            start_time=record.process.start_time,
            name=record.name,
        )
        if vmm is None:
            self._clear_run_files(record.id)
            return False
        self._keep(record, vmm)
        return True

    async def close(self) -> None:
        """Let go of every VMM; they go on."""
        running, self._running = self._running, {}
        for vmm in running.values():
            await vmm.disconnect()

    def _vmm(self, instance_id: str) -> Vmm:
        vmm = self._running.get(instance_id)
        if vmm is None:
            raise VmmError(f"{instance_id}: its VMM has ended; look at its log")
        return vmm

    def _api_socket(self, instance_id: str) -> Path:
        return self._run_dir / f"{instance_id}.sock"

    async def _spawn(self, record: InstanceRecord, config_file: str | None) -> Vmm:
        return await Vmm.spawn(
            self.hypervisor(record.hypervisor),
            instance_id=record.id,
            directory=self._instances / record.id,
            api_socket=self._api_socket(record.id),
            config_file=config_file,
            name=record.name,
        )

    def _keep(self, record: InstanceRecord, vmm: Vmm) -> ProcessIdentity:
        self._running[record.id] = vmm
        vmm.exited.add_done_callback(lambda future: self._exited(record.id, vmm, future))
        return ProcessIdentity(pid=vmm.pid, start_time=vmm.start_time)

    def _exited(self, instance_id: str, vmm: Vmm, future: "asyncio.Future[Exit]") -> None:
        """Report an exit that nobody asked for: one of a VMM that is still kept."""
        if self._running.get(instance_id) is vmm and not future.cancelled():
            del self._running[instance_id]
            self._clear_run_files(instance_id)
            self._on_exit(instance_id, future.result())

    async def _abandon(self, record: InstanceRecord, vmm: Vmm) -> None:
        await vmm.terminate()
        await self._templates.release(record)
        self._clear_run_files(record.id)

    def _clear_run_files(self, instance_id: str) -> None:
        for path in (self._api_socket(instance_id), self._run_dir / f"{instance_id}.uffd", self.page_map(instance_id)):
            path.unlink(missing_ok=True)


def _complete(directory: Path, names: tuple[str, ...]) -> None:
    """Make new files durable, read-only, and only then known by their names."""
    for name in names:
        temporary = directory / f"{name}.new"
        fd = os.open(temporary, os.O_RDONLY)
        try:
            os.fsync(fd)
            os.fchmod(fd, 0o440)
        finally:
            os.close(fd)
        temporary.rename(directory / name)
    sync_directory(directory)
