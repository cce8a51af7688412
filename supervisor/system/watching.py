"""Being told of changes in directories, by inotify(7), and looking now and then where that cannot be had.

Not by watchfiles, which adds a watch in the event loop's thread, where a mount that does not answer would stop all, and
ends at a directory that goes and at a name that is not UTF-8.
"""

import asyncio
import ctypes
import errno
import os
import threading
from collections.abc import Collection
from contextlib import suppress
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
    """Tells of changes in the directories that are named anew before each wait, together or one by one.

    So one that was put in the place of another is watched from the next look on, and what cannot be watched (there is
    none, fs.inotify.max_user_watches or max_user_instances are reached, the kernel's queue has overflowed) is looked at
    when the time is up. Nothing of that is an error.
    """

    def __init__(self) -> None:
        self._fd: int | None = None
        self._lock = threading.Lock()
        """Of what threads share, which may still be at a directory when the watch is closed; nobody blocks in it."""
        self._closed = False
        self._of: dict[Path, int] = {}
        self._watches: set[int] = set()

    def set(self, directories: Collection[Path]) -> None:
        """Watch these directories, not what is below them, and no others. Blocks on the disk."""
        for directory in directories:
            self.add(directory)
        self.keep(directories)

    def add(self, directory: Path) -> None:
        """Watch this directory too, or what is in its place. Blocks on the disk; any thread may."""
        number = None
        with suppress(OSError):
            # A descriptor of the thread's own: another file may have the number of one that is closed meanwhile.
            fd = self._duplicate()
            try:
                number = add_watch(fd, directory, _CHANGES)
            finally:
                os.close(fd)
        with self._lock:
            self._of.pop(directory, None)
            if number is not None:
                self._of[directory] = number
                self._watches.add(number)

    def remove(self, directory: Path) -> None:
        """Watch this one of those that were added no more."""
        with self._lock:
            number = self._of.pop(directory, None)
            if number is not None and self._fd is not None and number not in self._of.values():
                self._watches.discard(number)
                _libc.inotify_rm_watch(self._fd, number)

    def keep(self, directories: Collection[Path]) -> None:
        """Watch none but these of those that were added."""
        with self._lock:
            if self._fd is None:
                return
            self._of = {path: self._of[path] for path in directories if path in self._of}
            for left in self._watches.difference(self._of.values()):
                # Of a directory that is gone the kernel has removed it.
                _libc.inotify_rm_watch(self._fd, left)
            self._watches = {*self._of.values()}

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
        with self._lock:
            fd, self._fd, self._closed = self._fd, None, True
        if fd is not None:
            close_inotify(fd)

    def _duplicate(self) -> int:
        with self._lock:
            if self._closed:
                raise OSError(errno.EBADF, "the watch is closed")
            if self._fd is None:
                self._fd = inotify()
            return os.dup(self._fd)

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
