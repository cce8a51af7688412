"""Files that may be mostly holes, as disks of which little was ever written: what they have, and copies of it."""

import contextlib
import errno
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from supervisor.system.regular_files import open_regular

# What copy_file_range(2) says where it cannot copy from one file to the other: they are in two file systems, or in one
# that does not have the call.
_UNSUPPORTED: Final = (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)
_FICLONE: Final = 0x40049409
"""_IOW(0x94, 9, int) of include/uapi/linux/fs.h: ioctl_ficlone(2)."""
_PORTION: Final = 32 << 20
"""Bytes that are copied between two words about it: some ten milliseconds' worth of a disk."""

Copied = Callable[[int], object]
"""Hears of so many bytes more that are copied; what it raises ends the copying."""


def allocated(status: os.stat_result) -> int:
    """Return how many bytes a file has on the disk; its holes have none."""
    # st_blocks counts units of 512 bytes, whatever the file system's blocks are: stat(2).
    return status.st_blocks * 512


def extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield where a file of `size` bytes has data: [start, end) of each run, in bytes, ascending. Raises OSError."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # no data from here to the end: lseek(2)
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, end


def sparse_copy(source: Path, target: Path, copied: Copied) -> None:
    """Copy a file's bytes and holes durably to a new file of mode 0600; blocks are shared where the file system can.

    Raises OSError, and FileExistsError where there is a file at `target`; on failure no partial copy is left.
    """
    with opened(source) as source_fd:
        copy_opened(source_fd, target, copied)


def copy_opened(source_fd: int, target: Path, copied: Copied) -> None:
    """Do the same with a file that is open; raises as `sparse_copy`."""
    with created(target) as target_fd:
        size = os.fstat(source_fd).st_size
        if _cloned(source_fd, target_fd):
            copied(size)
            os.fsync(target_fd)
            return
        os.ftruncate(target_fd, size)
        for start, end in extents(source_fd, size):
            copy_range(source_fd, target_fd, start, end, copied)
        os.fsync(target_fd)


def shares_blocks(directory: Path) -> bool:
    """Return whether a copy of a file in a directory takes no room of its own until it is written to."""
    try:
        with tempfile.TemporaryFile(dir=directory) as source, tempfile.TemporaryFile(dir=directory) as target:
            source.write(bytes(4096))
            source.flush()
            return _cloned(source.fileno(), target.fileno())
    except OSError:
        return False


def _cloned(source: int, target: int) -> bool:
    """Have one file share all blocks of another, if that can be: on btrfs, XFS, bcachefs, and others."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
    except OSError:
        # Whatever is wrong with it, a copy is tried, which says so.
        return False
    return True


@contextlib.contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a regular file for reading; raises OSError for a link to one, or anything else."""
    fd = open_regular(path)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def created(path: Path) -> Iterator[int]:
    """Open a new file of mode 0600 for writing; it is removed again where the body raises."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        yield fd
    except BaseException:
        path.unlink()
        raise
    finally:
        os.close(fd)


def copy_range(source: int, target: int, start: int, end: int, copied: Copied) -> None:
    """Copy the bytes [start, end) to the same place; blocks are shared where the file system can. Raises OSError."""
    os.lseek(target, start, os.SEEK_SET)
    while start < end:
        try:
            # Btrfs and XFS share the blocks (vfs_copy_file_range in fs/read_write.c tries that first).
            length = os.copy_file_range(source, target, min(end - start, _PORTION), offset_src=start)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            length = os.sendfile(target, source, start, min(end - start, _PORTION))
        if length == 0:
            raise OSError(errno.EIO, "the file became shorter while it was copied")
        start += length
        copied(length)
