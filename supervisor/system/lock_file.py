"""A file by whose flock one process at a time has something; the kernel releases it however that process ends."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from supervisor.system.same_file import is_at


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

    def acquire(self, *, wait: bool = False) -> bool:
        """Take the lock, in place of what is held of it; return whether it was free. Raises OSError.

        With `wait` it blocks until the lock is free.
        """
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
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
def exclusively(path: Path) -> Iterator[None]:
    """Keep others that come by this file out of the body. Blocks while somebody is inside; raises OSError."""
    lock = LockFile(path)
    lock.acquire(wait=True)
    try:
        yield
    finally:
        lock.release()
