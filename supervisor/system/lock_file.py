"""A file by whose flock one process at a time has something; the kernel releases it however that process ends."""

import contextlib
import errno
import fcntl
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisor.system.regular_files import open_regular
from supervisor.system.same_file import is_at

MODE: Final = 0o600
"""Whoever can open the file can hold it: flock(2)."""


class LockFile:
    """The lock of whoever acquires it; the file is there while somebody has it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder = ""
        """What the one that has it has written there, after an `acquire` in vain."""
        self._descriptor: int | None = None

    @property
    def in_place(self) -> bool:
        """Whether it is held, and by the file that others would find: one that was removed keeps nobody out."""
        return self._descriptor is not None and is_at(self.path, os.fstat(self._descriptor))

    def acquire(self, seconds: float = 0.0) -> bool:
        """Take the lock, in place of what is held of it; return whether it was free, or became so within `seconds`.

        Raises OSError, also where the file is somebody else's, who could hold it for ever.
        """
        while True:
            descriptor = _opened(self.path)
            if not _locked(descriptor, seconds):
                self.holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
                os.close(descriptor)
                return False
            before, self._descriptor = self._descriptor, descriptor
            if before is not None:
                os.close(before)
            # Else the one that had it has removed it since it was opened.
            if self.in_place:
                return True

    def sign(self, text: str) -> None:
        """Write who has it, for those that find it taken; on a full disk it is held all the same."""
        assert self._descriptor is not None
        with contextlib.suppress(OSError):
            os.truncate(self._descriptor, 0)
            os.pwrite(self._descriptor, text.encode(), 0)

    def release(self) -> None:
        """Let go of it, and remove the file if it is this one."""
        if self._descriptor is not None:
            if self.in_place:
                with contextlib.suppress(OSError):
                    self.path.unlink()
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def exclusively(path: Path, seconds: float) -> Iterator[None]:
    """Keep others that come by this file out of the body. Blocks for `seconds` at most; raises OSError."""
    lock = LockFile(path)
    if not lock.acquire(seconds):
        raise OSError(errno.EBUSY, f"somebody has held it for {seconds:g} s; end that, or remove it", str(path))
    try:
        yield
    finally:
        lock.release()


def _opened(path: Path) -> int:
    """Return a descriptor of a lock file of this user's, which nobody else can open from here on."""
    descriptor = open_regular(path, os.O_RDWR | os.O_CREAT, MODE)
    try:
        uid = os.fstat(descriptor).st_uid
        if uid != os.geteuid():
            raise OSError(errno.EPERM, f"it belongs to uid {uid}; remove it, or name another directory", str(path))
        os.fchmod(descriptor, MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _locked(descriptor: int, seconds: float) -> bool:
    """Lock an open file, and return whether that was possible in time."""
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    if seconds <= 0:
        return False
    # flock(2) has no limit of time. A thread that is given up holds nobody up, and gives back at once what it gets.
    waiting = threading.Thread(target=_wait, args=(os.dup(descriptor),), daemon=True)
    waiting.start()
    waiting.join(seconds)
    return not waiting.is_alive()


def _wait(descriptor: int) -> None:
    """Lock an open file, for all descriptors of it that are open by then."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    finally:
        os.close(descriptor)
