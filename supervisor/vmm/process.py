"""A VMM's process: spawned in a session of its own or adopted, followed to its end, killed."""

import asyncio
import errno
import os
import select
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from supervisor.errors import VmmError
from supervisor.vmm.logs import CONSOLE_LOG, STDERR_LOG, appended, begin_logs, last_words

KILL_TIMEOUT: Final = 10.0
"""Seconds; a process that is still there after SIGKILL waits in the kernel for a device that does not answer."""
UMASK: Final = 0o077
"""A mem-file holds all that the guest knew."""

# Exit codes of Firecracker above those of any program: FcExitCode in its src/vmm/src/lib.rs.
_EXIT_CODES: Final = {
    148: "a system call that seccomp forbids",
    149: "SIGBUS",
    150: "SIGSEGV",
    151: "SIGXFSZ",
    152: "bad configuration",
    153: "bad arguments",
    154: "SIGXCPU",
    155: "SIGPIPE",
    156: "SIGHUP",
    157: "SIGILL",
}


_FROM_OUTSIDE: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@dataclass(frozen=True)
class Exit:
    """How a process ended: `code`, or the number of the `signal` that killed it; neither is known of an adopted one."""

    code: int | None
    signal: int | None
    text: str
    """The same in words, with the last of its log."""


class Process:
    """One VMM's process; made by `spawn` or `adopt` in a running event loop."""

    def __init__(self, pid: int, pidfd: int, start_time: int, directory: Path) -> None:
        self.pid = pid
        self.start_time = start_time
        """Clock ticks since boot: with the pid it names the process for as long as the host is up."""
        self.exited: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
        self._pidfd = pidfd
        self._directory = directory
        asyncio.get_running_loop().add_reader(pidfd, self._on_exit)

    @classmethod
    def spawn(cls, command: Sequence[str], *, directory: Path) -> Self:
        """Start a program with `directory` as its working directory, its stdout appended to the console log there.

        It blocks for the half millisecond until the program runs: the interpreter's lock is held meanwhile anyway, and
        a caller that is cancelled cannot lose the process. Raises VmmError where it cannot be started, and OSError.
        """
        begin_logs(directory)
        with appended(directory / CONSOLE_LOG) as console, appended(directory / STDERR_LOG) as stderr:
            try:
                child = subprocess.Popen(
                    command,
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=stderr,
                    start_new_session=True,
                    umask=UMASK,
                )
            except OSError as error:
                raise VmmError(f"{command[0]} cannot be started in {directory}: {error.strerror}") from error
        try:
            start_time = _start_time(child.pid)
            process = cls(child.pid, os.pidfd_open(child.pid), start_time, directory)
        except OSError:
            child.kill()
            child.wait()
            raise
        # The pidfd's reader reaps it; without this, Popen would do so too, and warn that it outlives this object.
        child.returncode = 0
        return process

    @classmethod
    def adopt(cls, pid: int, start_time: int, *, directory: Path) -> Self | None:
        """Follow a process that is not a child of this one; None where it has ended."""
        try:
            # Opened before the start time is read: if they match, it cannot be a later process with the same pid.
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            # ESRCH, and ENOENT or EINVAL where the pid has become a thread's: the process is gone.
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            return None
        try:
            alive = _start_time(pid) == start_time and not _has_ended(pidfd)
        except (FileNotFoundError, ProcessLookupError):
            alive = False
        if not alive:
            os.close(pidfd)
            return None
        return cls(pid, pidfd, start_time, directory)

    def kill(self) -> None:
        """Send SIGKILL, Firecracker's usual end: it keeps nothing that would be lost. Does nothing after the end."""
        if not self.exited.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    async def terminate(self) -> None:
        """Kill it and wait until it is gone; raises VmmError where it does not go."""
        self.kill()
        await asyncio.wait([self.exited], timeout=KILL_TIMEOUT)
        if not self.exited.done():
            raise VmmError(
                f"pid {self.pid} has not ended {KILL_TIMEOUT:.0f} s after SIGKILL: a device under it does not answer"
            )

    def disconnect(self) -> None:
        """Follow it no longer and let it go on; `exited` is cancelled unless it is done."""
        if not self.exited.done():
            self._close()
            self.exited.cancel()

    def _on_exit(self) -> None:
        """The pidfd became readable: the process is a zombie, or was one that its parent has reaped."""
        try:
            status = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        except ChildProcessError:
            status = None
        self._close()
        self.exited.set_result(_exit(status, last_words(self._directory)))

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)


def _exit(status: os.waitid_result | None, words: str) -> Exit:
    because = f": {words}" if words else ""
    if status is None:
        return Exit(None, None, f"ended{because}")
    number = status.si_status
    if status.si_code == os.CLD_EXITED:
        meaning = f" ({_EXIT_CODES[number]})" if number in _EXIT_CODES else ""
        return Exit(number, None, f"exited with code {number}{meaning}{because if number else ''}")
    # Most real-time signals have no name.
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    # Who was killed from outside did not know, and its last words are about something else.
    return Exit(None, number, f"killed by {name}{'' if number in _FROM_OUTSIDE else because}")


def _has_ended(pidfd: int) -> bool:
    # Not by select(2), which takes no descriptor from 1024 on: a supervisor of many VMs has those.
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def _start_time(pid: int) -> int:
    # The second field is the program's name in parentheses, and may hold blanks and parentheses: proc_pid_stat(5).
    stat = Path(f"/proc/{pid}/stat").read_text()
    return int(stat.rpartition(")")[2].split()[19])
