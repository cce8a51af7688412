"""A process that an event loop follows to its end: by its pidfd, and without waiting for it."""

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Generic, Self, TypeVar

from supervisor.system.processes import kill, open_pidfd, start_time_of

Outcome = TypeVar("Outcome")
Describe = Callable[[os.waitid_result | None], Outcome]
"""Makes of the kernel's word on an end what `exited` is to hold; None for a process that another one reaps."""


class FollowedProcess(Generic[Outcome]):
    """A process, known by its pid and its start time; made by `child` or `found` in a running event loop."""

    def __init__(self, pid: int, start_time: int, pidfd: int, describe: Describe[Outcome]) -> None:
        """`pidfd` is its own from here on. Raises OSError where that cannot be watched (epoll_ctl(2))."""
        self.pid = pid
        self.start_time = start_time
        """Clock ticks since boot: with the pid it names the process for as long as the host is up."""
        self.exited: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        """Done when it has ended, and reaped if it is a child; cancelled by `disconnect`."""
        self._pidfd = pidfd
        self._describe = describe
        try:
            asyncio.get_running_loop().add_reader(pidfd, self._on_exit)
        except OSError:
            os.close(pidfd)
            raise

    @classmethod
    def child(cls, pid: int, describe: Describe[Outcome]) -> Self:
        """Follow a child that was just started, and reap it at its end; where OSError is raised it has been killed."""
        try:
            return cls(pid, start_time_of(pid), os.pidfd_open(pid), describe)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise

    @classmethod
    def found(cls, pid: int, start_time: int, describe: Describe[Outcome]) -> Self | None:
        """Follow a process that need not be a child; None where it has ended. Raises OSError without a descriptor."""
        pidfd = open_pidfd(pid, start_time)
        return None if pidfd is None else cls(pid, start_time, pidfd, describe)

    def kill(self) -> None:
        """Send SIGKILL, without waiting. Does nothing after the end, or once it is followed no longer."""
        if not self.exited.done():
            kill(self._pidfd)

    def disconnect(self) -> None:
        """Follow it no longer and let it go on; `exited` is cancelled unless it is done."""
        if not self.exited.done():
            self._close()
            self.exited.cancel()

    def _on_exit(self) -> None:
        """The pidfd became readable: the process is a zombie, or was one that its parent has reaped."""
        try:
            result = os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG)
        except ChildProcessError:
            status = None
        else:
            if result is None:
                return  # whoever traces it has not let go of it yet
            status = result
        self._close()
        if not self.exited.done():
            self.exited.set_result(self._describe(status))

    def _close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)
