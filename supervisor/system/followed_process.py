"""A process that an event loop follows to its end: by its pidfd, and without waiting for it."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Generic, Self, TypeVar

from supervisor.system.process_group import Group, ProcessGroup
from supervisor.system.processes import KILL_TIMEOUT, kill, open_pidfd, start_time_of

GROUP_TIMEOUT: Final = 5.0
"""Seconds that the rest of a group has to end in, after its leader."""
EXIT_NOTICE: Final = 0.2
"""Seconds within which a process that has failed a request by its end is seen to have ended."""

_LOOKS: Final = ThreadPoolExecutor(4, "group")
"""Its own threads: those of the event loop may all wait for a disk, and an end is told after this only."""

Outcome = TypeVar("Outcome")
Settle = Callable[[], Awaitable[None]]
"""Awaited between an end and the word of it."""
Describe = Callable[[os.waitid_result | None], Outcome]
"""Makes of the kernel's word on an end what `exited` is to hold; None for a process that another one reaps."""
MakeGroup = Callable[[int, int], Group]
"""Returns the group that the process of this pid and start time leads."""


def exit_code(status: os.waitid_result | None) -> int | None:
    """Return an exit code, negative for a signal; None where it is another's to know."""
    if status is None:
        return None
    return status.si_status if status.si_code == os.CLD_EXITED else -status.si_status


class FollowedProcess(Generic[Outcome]):
    """A process, known by its pid and its start time; made by `child` or `found` in a running event loop.

    One that leads a group ends with it: what it leaves behind is ended before its own end is told.
    """

    def __init__(
        self,
        pid: int,
        start_time: int,
        pidfd: int,
        describe: Describe[Outcome],
        group: MakeGroup | None = None,
        settle: Settle | None = None,
    ) -> None:
        """`pidfd` is its own from here on; the end of a group is told after `settle`, which raises nothing.

        Raises OSError where the pidfd cannot be watched (epoll_ctl(2)).
        """
        self.pid = pid
        self.start_time = start_time
        """Clock ticks since boot: with the pid it names the process for as long as the host is up."""
        self.exited: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        """Done when it has ended, and reaped if it is a child; cancelled by `disconnect`."""
        self.left: tuple[int, ...] = ()
        """Processes of its group that did not end."""
        self._pidfd = pidfd
        self._describe = describe
        self._settle = settle
        self._group = None if group is None else group(pid, start_time)
        self._ending: asyncio.Task[None] | None = None
        try:
            asyncio.get_running_loop().add_reader(pidfd, self._on_exit)
        except OSError:
            os.close(pidfd)
            raise
        if self._group is not None:
            ProcessGroup.sessions.add(pid)

    @classmethod
    def child(
        cls,
        pid: int,
        describe: Describe[Outcome],
        group: MakeGroup | None = None,
        settle: Settle | None = None,
    ) -> Self:
        """Follow a child that was just started, and reap it at its end; where OSError is raised it has been killed.

        With a `group` it leads that.
        """
        start_time = 0
        try:
            start_time = start_time_of(pid)
            return cls(pid, start_time, os.pidfd_open(pid), describe, group, settle)
        except OSError:
            os.kill(pid, signal.SIGKILL)
            if group is not None:
                its = group(pid, start_time)
                its.kill_unseen()
                # What has begun a session of its own; nobody waits for it.
                with contextlib.suppress(RuntimeError):
                    _LOOKS.submit(its.end, GROUP_TIMEOUT)
            os.waitpid(pid, 0)
            raise

    @classmethod
    def found(
        cls,
        pid: int,
        start_time: int,
        describe: Describe[Outcome],
        group: MakeGroup | None = None,
        settle: Settle | None = None,
    ) -> Self | None:
        """Follow a process that need not be a child; None where it has ended. Raises OSError without a descriptor."""
        pidfd = open_pidfd(pid, start_time)
        return None if pidfd is None else cls(pid, start_time, pidfd, describe, group, settle)

    def kill(self) -> None:
        """Send SIGKILL, without waiting. Does nothing after the end, or once it is followed no longer."""
        if not self.exited.done():
            kill(self._pidfd)

    async def end(self) -> None:
        """Kill it, and wait until it is gone and reaped; raises TimeoutError, which says why, where it does not go."""
        self.kill()
        await asyncio.wait([self.exited], timeout=KILL_TIMEOUT)
        if not self.exited.done():
            raise TimeoutError(
                f"pid {self.pid} has not ended {KILL_TIMEOUT:.0f} s after SIGKILL: a device under it does not answer"
            )

    def disconnect(self) -> None:
        """Follow it no longer and let it go on; `exited` is cancelled unless it is done."""
        if not self.exited.done():
            if self._ending is not None:
                self._ending.cancel()
            self._close()
            self.exited.cancel()

    async def end_rest(self) -> None:
        """End what its group has left after its end; `left` says what does not go.

        Raises OSError without a descriptor for a look, and RuntimeError without a thread.
        """
        if self._group is not None:
            loop = asyncio.get_running_loop()
            self.left = await loop.run_in_executor(_LOOKS, self._group.end, GROUP_TIMEOUT)

    def _on_exit(self) -> None:
        """The pidfd became readable: the process is a zombie, or was one that its parent has reaped."""
        if self._group is None:
            self._finish()
        elif self._ending is None:
            asyncio.get_running_loop().remove_reader(self._pidfd)
            self._ending = asyncio.create_task(self._end_group(self._group))

    async def _end_group(self, group: Group) -> None:
        # Before it is reaped: until then its session's id is nobody else's.
        try:
            await self.end_rest()
        except (OSError, RuntimeError):
            group.kill_unseen()
        if self._settle is not None:
            await self._settle()
        self._finish()
        if not self.exited.done():
            asyncio.get_running_loop().add_reader(self._pidfd, self._finish)

    def _finish(self) -> None:
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
        if self._group is not None:
            ProcessGroup.sessions.discard(self.pid)
        asyncio.get_running_loop().remove_reader(self._pidfd)
        os.close(self._pidfd)


class OfProcess(Generic[Outcome]):
    """What stands for one process that is followed."""

    def __init__(self, process: FollowedProcess[Outcome]) -> None:
        self._process = process

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def start_time(self) -> int:
        """When the process was started, in clock ticks since boot."""
        return self._process.start_time

    @property
    def exited(self) -> asyncio.Future[Outcome]:
        """How the process has ended, once it has; cancelled by `disconnect`."""
        return self._process.exited
