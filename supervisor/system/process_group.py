"""All that a program which was started came to be: the processes of its session, and those that carry its mark.

The session is what a process stays in unless it asks for another one, setsid(2); the mark is in the environment, and a
process that begins a session keeps it. No cgroup: to move a process into one waits for an RCU grace period
(cgroup_attach_lock in kernel/cgroup/cgroup.c), some 10 ms, which is several times what a VMM takes to start.

Every function blocks on /proc.
"""

import contextlib
import functools
import os
import signal
import time
from pathlib import Path
from typing import ClassVar, Final, Protocol

from supervisor.system.processes import has_ended, kill, proc_file, start_time_of, stat_fields, wait_for_ends

_MARK: Final = "FORKTUI_VMM_DIRECTORY"
_ENDED: Final = (b"Z", b"X")
"""States of proc_pid_stat(5): it waits to be reaped, or is about to be gone."""


def marked_environment(directory: Path) -> dict[str, str]:
    """Return this process's environment with the mark of what is started for a directory."""
    # At the beginning: of a long environment not all is read.
    return {_MARK: str(directory.resolve())} | _environment()


@functools.cache
def _environment() -> dict[str, str]:
    """Return the environment, which is copied once: for each VMM that would take some part of its start."""
    return {name: value for name, value in os.environ.items() if name != _MARK}


def mark_of(pid: int) -> str | None:
    """Return the directory that a process was started for, as its mark says; None without one, or where that is secret.

    It is what the process began with: proc_pid_environ(5).
    """
    try:
        words = proc_file(pid, "environ").split(b"\0")
    except OSError:
        return None
    prefix = f"{_MARK}=".encode()
    return next((os.fsdecode(word.removeprefix(prefix)) for word in words if word.startswith(prefix)), None)


class Group(Protocol):
    """All that a program came to be."""

    def kill_unseen(self) -> None:
        """Kill what can be without a look, thus a descriptor; its leader is not reaped, or has only just been."""

    def end(self, seconds: float) -> tuple[int, ...]:
        """Kill all but the leader until none is left; return those that live after `seconds`. Raises OSError."""


class ProcessGroup:
    """The processes of a session's leader that was started for a directory."""

    sessions: ClassVar[set[int]] = set()
    """The sessions whose leaders are followed: what is in one of them has left no other."""

    def __init__(self, leader: int, start_time: int, directory: Path) -> None:
        """`start_time` is the leader's, in clock ticks since boot: nothing that it started is older."""
        self.leader = leader
        self._start_time = start_time
        self._mark = str(directory.resolve())

    def kill_unseen(self) -> None:
        """Kill the leader and what began neither a session nor a job of its own: without a look, thus a descriptor.

        The leader is not reaped, or has only just been: later its id may be another's.
        """
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.leader, signal.SIGKILL)

    def others(self) -> list[int]:
        """Return the pids of those that live, without the leader; raises OSError without a descriptor.

        A session's id is given to no other while it has a member or its leader is not reaped: alloc_pid in
        kernel/pid.c.
        """
        names = os.listdir("/proc")  # noqa: PTH208 - no path is to be made of each
        return [int(name) for name in names if name.isdecimal() and self._has(int(name))]

    def end(self, seconds: float) -> tuple[int, ...]:
        """Kill all but the leader until a look finds none; return those that live after `seconds`. Raises OSError."""
        deadline = time.monotonic() + seconds
        while (left := self.others()) and (remaining := deadline - time.monotonic()) > 0:
            with contextlib.ExitStack() as opened:
                killed = []
                for pid in left:
                    # What it starts before this reaches it is found by the next look.
                    with contextlib.suppress(OSError):
                        pidfd = os.pidfd_open(pid)
                        opened.callback(os.close, pidfd)
                        # Looked at again: the pid may have become another's before it was opened.
                        if self._has(pid) and not has_ended(pidfd):
                            kill(pidfd)
                            killed.append(pidfd)
                wait_for_ends(killed, remaining)
        return tuple(left)

    def _has(self, pid: int) -> bool:
        if pid in (self.leader, os.getpid()):
            return False
        try:
            session = os.getsid(pid)
            # Threads of the kernel have none.
            if session != self.leader and (session in self.sessions or not session):
                return False
            # First: to read an environment takes the lock of that process's memory, and waits for whoever holds it.
            if start_time_of(pid) < self._start_time:
                return False
            return (session == self.leader or mark_of(pid) == self._mark) and stat_fields(pid)[0] not in _ENDED
        except OSError:
            return False
