"""The machine: which request does what in which state.

Firecracker's order holds: it is configured and booted, or loaded from a snapshot, once; a snapshot is made of it while
it is paused.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from supervisor.embedded import state_file
from supervisor.embedded.config import Balloon, BootSource, MachineConfig, SnapshotCreate, SnapshotLoad
from supervisor.embedded.cpu import Cpu
from supervisor.embedded.dirty_log import DirtyLog
from supervisor.embedded.log import Log
from supervisor.embedded.memory import GuestMemory
from supervisor.embedded.refusals import FatalFaultError, FaultError, MalformedError, reason
from supervisor.embedded.walker import GENERATION_ADDRESS, GENERATION_BYTES, Pagewalker, Registers
from supervisor.guests import pagewalker
from supervisor.guests.pagewalker import MIB, PAGE_SIZE

NOT_STARTED, RUNNING, PAUSED = "Not started", "Running", "Paused"
WAIT_SECONDS: Final = 5.0
"""How long a request waits for a CPU that does not stop, until it is refused."""
TURN_SECONDS: Final = 30.0
"""The same for a request before it; longer than anybody waits for it: a busy VMM is silent, as Firecracker is."""
_BALLOON: Final = "Balloon config error"
_POST_BOOT: Final = "The requested operation is not supported after starting the microVM."
_LOAD: Final = "Load snapshot error: Failed to restore from snapshot"
_PRE_BOOT: Final = "The requested operation is not supported before starting the microVM."
_SHIPPED: Final = f"{pagewalker.__file__.removesuffix('.py')}.elf"


class Machine:
    """One VM. Requests may come from several threads; every one of them may raise FaultError."""

    def __init__(self, log: Log, ended: Callable[[BaseException], None]) -> None:
        self.state = NOT_STARTED
        self.config = MachineConfig()
        self._log = log
        self._ended = ended
        self._lock = threading.Lock()
        self._configured = False
        self._boot_source: BootSource | None = None
        self._balloon: Balloon | None = None
        self._memory: GuestMemory
        self._guest: Pagewalker
        self._cpu: Cpu

    def set_boot_source(self, boot_source: BootSource) -> None:
        """Choose what to boot; the kernel is read now."""
        with self._turn(started=False):
            self._configured = True
            _check_kernel(boot_source.kernel_image_path)
            self._boot_source = boot_source

    def set_config(self, config: MachineConfig) -> None:
        """Choose the size of the machine."""
        with self._turn(started=False):
            self._configured = True
            if self._balloon is not None and self._balloon.amount_mib > config.mem_size_mib:
                raise FaultError(
                    "Machine config error: The memory size (MiB) is smaller than the previously set balloon device "
                    f"target size: the balloon is to have {self._balloon.amount_mib} MiB; set that first"
                )
            self.config = config

    def set_balloon(self, balloon: Balloon) -> None:
        """Give the machine a balloon device, or another one."""
        with self._turn(started=False):
            self._configured = True
            self._check_balloon_size(balloon.amount_mib)
            self._balloon = balloon

    def update_balloon(self, amount_mib: int) -> None:
        """Set the balloon's target, MiB in all; the guest follows it when it next looks, or is resumed."""
        with self._turn(started=True):
            self._check_balloon_size(amount_mib)
            self._balloon = self._balloon_device()._replace(amount_mib=amount_mib)
            self._cpu.interrupt()

    def whole_config(self) -> dict[str, Any]:
        """Return the machine and its devices in the shape of a config file."""
        balloon = None if self._balloon is None else self._balloon._asdict()
        return {"machine-config": self.config._asdict(), "drives": [], "balloon": balloon}

    def balloon_config(self) -> dict[str, Any]:
        """Return the balloon device as it was set, with the size that it has been told since."""
        return self._balloon_device()._asdict()

    def balloon_statistics(self) -> dict[str, int]:
        """Return how large the balloon is to be and how large it is; what a guest's kernel counts, this one has not."""
        if self.state == NOT_STARTED:
            raise FaultError(_PRE_BOOT)
        balloon = self._balloon_device()
        if not balloon.stats_polling_interval_s:
            raise FaultError(
                f"{_BALLOON}: Statistics for the balloon device are not enabled; boot with a stats_polling_interval_s"
            )
        target, actual = balloon.amount_mib, self._guest.registers.balloon_mib
        pages = MIB // PAGE_SIZE
        return {
            "target_pages": target * pages,
            "actual_pages": actual * pages,
            "target_mib": target,
            "actual_mib": actual,
        }

    def start(self) -> None:
        """Boot."""
        with self._turn(started=False):
            if self._boot_source is None:
                raise FaultError("Start microvm error: Cannot start microvm without kernel configuration.")
            try:
                memory = GuestMemory.anonymous(self.config.mem_size_mib * MIB)
            except OSError as error:
                raise FaultError(f"Start microvm error: Cannot create guest memory: {reason(error)}") from error
            self._build(memory, Registers(self._boot_source.boot_args), has_base=False)
            self._resume()

    def pause(self) -> None:
        """Stop the CPU at its next page boundary; where it does not get there in WAIT_SECONDS it runs on."""
        with self._turn(started=True):
            self._cpu.pause(WAIT_SECONDS)
            self.state = PAUSED

    def resume(self) -> None:
        """Let the CPU go on."""
        with self._turn(started=True):
            self._resume()

    def create_snapshot(self, files: SnapshotCreate) -> None:
        """Write the state-file and the mem-file of a paused VM, both durably."""
        with self._turn(started=True):
            if files.snapshot_type == "Diff" and not self.config.track_dirty_pages:
                raise FaultError(
                    "The requested operation is not supported: Diff snapshots are not allowed on uVMs with dirty page "
                    "tracking disabled; set track_dirty_pages at boot, or enable_diff_snapshots at load"
                )
            if self.state != PAUSED:
                raise FaultError(
                    "Create snapshot error: Cannot save the microVM state: Operation not allowed: "
                    "save/restore unavailable while running"
                )
            config, registers = self.config, self._guest.registers
            state = state_file.State(config.vcpu_count, config.mem_size_mib, registers, self._balloon)
            try:
                state_file.save(files.snapshot_path, state)
            except OSError as error:
                raise FaultError(f"Create snapshot error: Cannot write the snapshot file: {reason(error)}") from error
            try:
                self._dump(files.mem_file_path, files.snapshot_type)
            except OSError as error:
                raise FaultError(f"Create snapshot error: Cannot write the memory file: {reason(error)}") from error

    def load_snapshot(self, source: SnapshotLoad) -> None:
        """Become the VM of a snapshot, paused or running; raises FatalFaultError if that fails half-way."""
        with self._turn(started=False):
            if self._configured:
                raise FaultError(
                    "Load snapshot error: "
                    "Loading a microVM snapshot not allowed after configuring boot-specific resources."
                )
            state = _load_state(source.snapshot_path)
            memory = _load_memory(source, state.mem_size_mib * MIB)
            if memory.user_mode_only:
                self._log.info("The userfaultfd is one for user mode only (vm.unprivileged_userfaultfd)")
            tracked = source.track_dirty_pages
            self.config = MachineConfig(state.vcpu_count, state.mem_size_mib, track_dirty_pages=tracked)
            self._balloon = state.balloon
            self._build(memory, state.registers, has_base=True)
            self.state = PAUSED
            if source.resume_vm:
                self._resume()

    @contextmanager
    def _turn(self, started: bool) -> Iterator[None]:
        """Hold the machine for one request, which needs it to be started or not to be."""
        if not self._lock.acquire(timeout=TURN_SECONDS):
            raise FaultError(f"Another request has not been finished for {TURN_SECONDS:g} s; try again when it has")
        try:
            if started != (self.state != NOT_STARTED):
                raise FaultError(_PRE_BOOT if started else _POST_BOOT)
            yield
        finally:
            self._lock.release()

    def _check_balloon_size(self, amount_mib: int) -> None:
        if amount_mib > self.config.mem_size_mib:
            raise FaultError(
                f"{_BALLOON}: Amount of pages requested is too large: {amount_mib} MiB of a machine with "
                f"{self.config.mem_size_mib}; ask for no more than it has"
            )

    def _balloon_device(self) -> Balloon:
        if self._balloon is None:
            raise FaultError(f"{_BALLOON}: No balloon device found; PUT /balloon before the VM is started")
        return self._balloon

    def _balloon_target(self) -> int:
        return 0 if self._balloon is None else self._balloon.amount_mib

    def _build(self, memory: GuestMemory, registers: Registers, has_base: bool) -> None:
        """Put the machine together, with a generation id of its own, as every boot and every load gets one."""
        if self.config.track_dirty_pages:
            memory.dirty_log = DirtyLog(memory.size // PAGE_SIZE, has_base)
        memory.write(GENERATION_ADDRESS, os.urandom(GENERATION_BYTES))
        self._memory = memory
        self._guest = Pagewalker(memory, registers, _print_line, self._balloon_target)
        self._cpu = Cpu(self._guest.run(), self._ended)

    def _resume(self) -> None:
        self._cpu.resume()
        self.state = RUNNING

    def _dump(self, path: str, snapshot_type: str) -> None:
        """Write the mem-file. A Diff goes into one that is there and has the memory's size, as in Firecracker."""
        dirty_log = self._memory.dirty_log
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            status = os.fstat(fd)
            if self._memory.is_file(status):
                raise FaultError(
                    f"Create snapshot error: {path} is the mem-file that this VM's memory is a mapping of; "
                    "name another file"
                )
            if snapshot_type == "Full" or status.st_size != self._memory.size:
                os.ftruncate(fd, 0)
            if snapshot_type == "Full" or dirty_log is None:
                self._memory.dump(fd)
            else:
                self._memory.dump_dirty(fd, dirty_log)
            os.fsync(fd)
        finally:
            os.close(fd)
        if dirty_log is not None:
            dirty_log.reset()


def _check_kernel(path: str) -> None:
    """Raises FaultError unless the file is the shipped pagewalker: the simulated CPU knows no other program."""
    try:
        kernel = _read(path)
    except OSError as error:
        raise FaultError(f"Boot source error: The kernel file cannot be opened: {reason(error)}") from error
    try:
        shipped = _read(_SHIPPED)
    except OSError as error:
        raise FaultError(f"Boot source error: {_SHIPPED} cannot be opened: {reason(error)}") from error
    if kernel != shipped:
        raise FaultError(
            f"Boot source error: {path} is not the pagewalker that ships with forktui, and the simulated CPU runs no "
            "other kernel; use Firecracker for it"
        )


def _read(path: str) -> bytes:
    """Return the first bytes of a file, more than a pagewalker has; raises OSError."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
        return file.read(MIB)


def _load_state(path: str) -> state_file.State:
    try:
        return state_file.load(path)
    except OSError as error:
        raise FatalFaultError(f"{_LOAD}: Failed to open snapshot file: {reason(error)}") from error
    except MalformedError as error:
        raise FatalFaultError(f"{_LOAD}: Failed to load snapshot state from file {path}: {error}") from error


def _load_memory(source: SnapshotLoad, size: int) -> GuestMemory:
    kind, path = source.backend_type, source.backend_path
    try:
        return GuestMemory.from_page_server(path, size) if kind == "Uffd" else GuestMemory.from_file(path, size)
    except OSError as error:
        raise FatalFaultError(
            f"{_LOAD}: Error creating guest memory from {kind.lower()} {path}: {reason(error)}"
        ) from error
    except ValueError as error:
        raise FatalFaultError(f"{_LOAD}: Error creating guest memory from {kind.lower()}: {error}") from error


def _print_line(line: str) -> None:
    """Print on the serial console, which is stdout; a console that nobody can read any more stops no guest."""
    try:
        os.write(1, f"{line}\n".encode())
    except OSError:
        return
