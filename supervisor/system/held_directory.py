"""A directory held by a shared flock while processes of ours have something in it; standard library only.

systemd-tmpfiles ages what lies in /tmp, /var/tmp and /run by the host's rules. It takes LOCK_EX | LOCK_NB on each
directory before it goes in, and passes by one that somebody holds, with all that is in it: tmpfiles.d(5), and
dir_cleanup in systemd's src/tmpfiles/tmpfiles.c.
"""

import contextlib
import errno
import fcntl
import os
from pathlib import Path

from supervisor.system.same_file import is_at


class HeldDirectory:
    """The directory at a path, once `hold` has found one there; its lock goes with the process, however that ends."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None
        self._locked = False

    @property
    def status(self) -> os.stat_result | None:
        """What is held, also after its removal: its mode and owner are those of the one to be made in its place."""
        return None if self._descriptor is None else os.fstat(self._descriptor)

    @property
    def in_place(self) -> bool:
        """Whether what is held is what the path leads to."""
        return is_at(self.path, self.status)

    def hold(self) -> int:
        """Hold what is at the path now, and let go of what was; raises OSError where that is no directory, or a link.

        Returns its descriptor, whose duplicates hold it too. Never waits: where systemd-tmpfiles is at work there, the
        next call gets the lock.
        """
        if not self.in_place:
            opened = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            self.close()
            self._descriptor = opened
        descriptor = self._descriptor
        if descriptor is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        if not self._locked:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                self._locked = True
        return descriptor

    def close(self) -> None:
        """Let go of it."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor, self._locked = None, False
