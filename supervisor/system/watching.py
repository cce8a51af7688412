"""Being told of changes in directories, by inotify(7), and looking now and then where that cannot be had."""

import asyncio
import ctypes
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

# include/uapi/linux/inotify.h
IN_MODIFY: Final = 0x2
IN_ATTRIB: Final = 0x4
IN_CLOSE_WRITE: Final = 0x8
IN_MOVED: Final = 0xC0
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_DELETE: Final = 0x200
IN_DELETE_SELF: Final = 0x400
IN_MOVE_SELF: Final = 0x800
IN_ONLYDIR: Final = 0x01000000

EVENTS_BYTES: Final = 65536

_CHANGES: Final = (
    IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED | IN_CREATE | IN_DELETE
    | IN_DELETE_SELF | IN_MOVE_SELF | IN_ONLYDIR
)  # fmt: skip
_libc: Final = ctypes.CDLL(None, use_errno=True)


def inotify() -> int:
    """Return an inotify descriptor; raises OSError: EMFILE where fs.inotify.max_user_instances are there already."""
    return _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")


def add_watch(fd: int, path: Path, events: int) -> int:
    """Watch what is at a path, and return the watch's number: the same for what is watched; raises OSError. Blocks."""
    return _checked(_libc.inotify_add_watch(fd, os.fsencode(path), events), str(path))


class Watch:
    """Tells of changes in the directories that are named anew before each wait.

    So one that was put in the place of another is watched from the next look on, and what cannot be watched (there is
    none, fs.inotify.max_user_watches or max_user_instances are reached, the kernel's queue has overflowed) is looked at
    when the time is up. Nothing of that is an error.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._watches: frozenset[int] = frozenset()

    def set(self, directories: Iterable[Path]) -> None:
        """Watch these directories, not what is below them, and no others. Blocks on the disk."""
        if self._fd is None:
            try:
                self._fd = inotify()
            except OSError:
                return
        found = set()
        for directory in directories:
            try:
                found.add(add_watch(self._fd, directory, _CHANGES))
            except OSError:
                continue
        for left in self._watches - found:
            # Of a directory that is gone the kernel has removed it.
            _libc.inotify_rm_watch(self._fd, left)
        self._watches = frozenset(found)

    async def wait(self, seconds: float, gather: float) -> None:
        """Return after `seconds`, or once `gather` seconds have passed since a change: more come together mostly."""
        if self._fd is None:
            await asyncio.sleep(seconds)
            return
        loop, happened = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._fd, happened.set)
        try:
            async with asyncio.timeout(seconds):
                await happened.wait()
        except TimeoutError:
            return
        finally:
            # What comes meanwhile is left to the kernel, which merges it: a guest may print as fast as it can.
            loop.remove_reader(self._fd)
        await asyncio.sleep(gather)
        self._drain(self._fd)

    def close(self) -> None:
        """Watch no more."""
        if self._fd is not None:
            close_inotify(self._fd)
        self._fd = None

    def _drain(self, fd: int) -> None:
        try:
            while len(os.read(fd, EVENTS_BYTES)) > EVENTS_BYTES // 2:
                pass
        except BlockingIOError:
            return


def close_inotify(fd: int) -> None:
    """Close it in a thread: that waits for a grace period of the kernel (fsnotify_destroy_group), some 10 ms."""
    asyncio.get_running_loop().run_in_executor(None, os.close, fd)


def _checked(result: int, path: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return result
