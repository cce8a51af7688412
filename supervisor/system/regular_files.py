"""Files where another process may have put what is none: opened only as what they are, without waiting, and removed.

A VMM writes in a directory in which the supervisor reads. What it may leave there under a name, a link to somewhere
else or a FIFO that nobody writes to, is neither followed nor waited for.
"""

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Final

_KINDS: Final = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def open_regular(path: Path, flags: int = os.O_RDONLY, mode: int = 0o600) -> int:
    """Return a descriptor of a regular file; raises OSError, which says what else is there."""
    try:
        # A FIFO is waited for without O_NONBLOCK, which is nothing to a regular file: open(2).
        fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, mode)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _no_file(path, os.lstat(path)) from error
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        raise _no_file(path, status)
    return fd


def discard(path: Path) -> None:
    """Remove what is at a path, whatever it is, and follow no link; raises OSError where it stays."""
    try:
        path.unlink(missing_ok=True)
    except IsADirectoryError:
        shutil.rmtree(path)


def _no_file(path: Path, status: os.stat_result) -> OSError:
    kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
    return OSError(errno.EINVAL, f"it is {kind}, and no file", str(path))
