"""Where a VMM runs, and what of it is where: in its instance's directory, or in a jail (supervisor/jails)."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from subprocess import Popen
from typing import Protocol

from supervisor.system.process_group import Group, ProcessGroup
from supervisor.system.unix_sockets import remove_stale
from supervisor.vmm.api_socket import ApiSocket, SocketAtPath
from supervisor.vmm.hypervisor import Hypervisor
from supervisor.vmm.into_cgroup import Start
from supervisor.vmm.logs import LOG_LEVEL, LOG_TARGET

_LOG: tuple[str, ...] = ("--level", LOG_LEVEL, "--show-level")


class Quarters(Protocol):
    """Where one VMM runs."""

    @property
    def directory(self) -> Path:
        """The instance's, with its vm.json and its logs."""

    @property
    def working_directory(self) -> Path:
        """Where the command is started."""

    @property
    def socket(self) -> ApiSocket:
        """Where the VMM's API answers."""

    @property
    def fifos(self) -> Mapping[int, Path]:
        """What the VMM opens of its outputs by a name: that descriptor of it is to be the FIFO there."""

    def clear(self) -> None:
        """Put away what a VMM before has left in the way of this one; raises OSError. Blocks."""

    def command(self, hypervisor: Hypervisor, instance_id: str) -> Sequence[str]:
        """Return the command line that starts the VMM."""

    def start(self, program: Start) -> int:
        """Start what the command says by calling `program`, in whatever thread; returns its pid. Raises OSError."""

    def group(self, pid: int, start_time: int) -> Group:
        """Return all that the VMM of this pid came to be."""


class InDirectory:
    """An instance's directory, in which a VMM of this user works."""

    def __init__(self, directory: Path, api_socket: Path) -> None:
        self.directory = directory
        self.working_directory = directory
        self.socket: ApiSocket = SocketAtPath(api_socket)
        self.fifos: Mapping[int, Path] = {}
        self.group = partial(ProcessGroup, directory=directory)

    def start(self, program: Start) -> int:
        """Start it as it is."""
        return started(program((), ()))

    def clear(self) -> None:
        """A vsock device binds its uds_path, and finds the socket there of the VMM before, which was killed."""
        remove_stale(self.directory)

    def command(self, hypervisor: Hypervisor, instance_id: str) -> Sequence[str]:
        """Return what starts the VMM itself."""
        return (
            *hypervisor.command,
            *("--api-sock", str(self.socket.path), "--id", instance_id),
            *log_options(LOG_TARGET),
        )


def started(child: "Popen[bytes]") -> int:
    """Return the pid of a child that is reaped by who follows it: Popen would do so too, and warn that it goes on."""
    child.returncode = 0
    return child.pid


def log_options(target: str) -> tuple[str, ...]:
    """Return the options by which Firecracker logs to a path."""
    return "--log-path", target, *_LOG
