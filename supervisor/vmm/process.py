"""A VMM's process: spawned in a session of its own or adopted, followed to its end, killed with all that it started."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Self

from supervisor.errors import VmmError
from supervisor.system.followed_process import FollowedProcess
from supervisor.system.oom_score import give_way
from supervisor.system.process_group import marked_environment
from supervisor.vmm.logs import CONSOLE_LOG, STDERR_LOG, appended, last_message, rotate_logs

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
    """The same in words, with its last message."""


class Process(FollowedProcess[Exit]):
    """One VMM's process; made by `spawn` or `adopt` in a running event loop."""

    @classmethod
    def spawn(cls, command: Sequence[str], *, directory: Path) -> Self:
        """Start a program with `directory` as its working directory, its stdout appended to the console log there.

        It blocks for the half millisecond until the program runs: the interpreter's lock is held meanwhile anyway, and
        a caller that is cancelled cannot lose the process. Raises VmmError where it cannot be started, and OSError.
        """
        rotate_logs(directory)
        with appended(directory / CONSOLE_LOG) as console, appended(directory / STDERR_LOG) as stderr:
            try:
                child = subprocess.Popen(
                    command,
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=stderr,
                    env=marked_environment(directory),
                    start_new_session=True,
                    umask=UMASK,
                )
            except OSError as error:
                raise VmmError(f"{command[0]} cannot be started in {directory}: {error.strerror}") from error
        # It is reaped by who follows it; without this, Popen would do so too, and warn that it outlives this object.
        child.returncode = 0
        give_way(child.pid)
        return cls.child(child.pid, partial(_exit, directory), directory)

    @classmethod
    def adopt(cls, pid: int, start_time: int, *, directory: Path) -> Self | None:
        """Follow a process that is not a child of this one; None where it has ended."""
        process = cls.found(pid, start_time, partial(_exit, directory), directory)
        if process is not None:
            give_way(pid)
        return process

    async def terminate(self) -> None:
        """Kill it and wait until it and all of its group are gone; raises VmmError where one does not go."""
        try:
            # Firecracker's usual end: it keeps nothing that would be lost.
            await self.end()
        except TimeoutError as error:
            raise VmmError(str(error)) from error
        if self.left:
            # Without a look they are told as they were.
            with contextlib.suppress(OSError, RuntimeError):
                await self.end_rest()
        if self.left:
            pids = ", ".join(map(str, self.left))
            raise VmmError(f"pid {pids}, of what pid {self.pid} has started, cannot be ended: end it, and ask again")


def _exit(directory: Path, status: os.waitid_result | None) -> Exit:
    message = last_message(directory)
    because = f": {message}" if message else ""
    if status is None:
        return Exit(None, None, f"ended{because}")
    number = status.si_status
    if status.si_code == os.CLD_EXITED:
        meaning = f" ({_EXIT_CODES[number]})" if number in _EXIT_CODES else ""
        return Exit(number, None, f"exited with code {number}{meaning}{because if number else ''}")
    # Most real-time signals have no name.
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    # Killed from outside: its last message is about something else.
    return Exit(None, number, f"killed by {name}{'' if number in _FROM_OUTSIDE else because}")
