"""A log that is added to and never has more than so many bytes: what is older is dropped; standard library only.

It is opened for each piece: whatever somebody has put in its place is seen at the next, and no descriptor is held for
a guest that prints nothing.
"""

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

from supervisor.consoles.rotation import SUFFIXES, UNFINISHED, Rotation, previous, start_of, write_record
from supervisor.system.regular_files import discard, open_regular, remove_tree

MODE = 0o640


class BoundedFile:
    """The only writer of a log at `path`, of which two files have `most_bytes` together; it raises nothing."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        self.path = path
        self.most_bytes = most_bytes
        self.dropped = 0
        """Bytes that could not be written since the last that could."""
        self.reason = ""
        """Why."""

    @property
    def _half(self) -> int:
        return self.most_bytes // 2

    def write(self, data: bytes) -> None:
        """Add to the log what there is room for, or else count it; what was dropped is told in the log afterwards."""
        told = f"\n-- {self.dropped} bytes were dropped here: {self.reason} --\n" if self.dropped else ""
        rest = told.encode() + data
        try:
            while rest:
                rest = rest[self._append(rest) :]
        except OSError as error:
            self.dropped = len(rest) if len(rest) <= len(data) else self.dropped + len(data)
            self.reason = error.strerror or str(error)
        else:
            self.dropped = 0

    def _append(self, data: bytes) -> int:
        """Write what fits, and return how many bytes that are; raises OSError."""
        fd = open_regular(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, MODE)
        try:
            room = self._half - os.fstat(fd).st_size
            if len(data) <= room:
                return os.write(fd, data)
            # At a line end where there is one; else the line goes on in the next file.
            written = os.write(fd, data[: data.rfind(b"\n", 0, room) + 1 or room]) if room > 0 else 0
        finally:
            os.close(fd)
        self._rotate()
        return written

    def _rotate(self) -> None:
        try:
            rotate(self.path, self._half)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                raise
            # A full disk has no room for the record of it before it has dropped something.
            previous(self.path).unlink(missing_ok=True)
            rotate(self.path, self._half)


def rotate(path: Path, most_bytes: int) -> None:
    """Make a log's newest file its older one, with at most this many bytes from its end; raises OSError."""
    status = path.lstat()
    end = start_of(path, status) + status.st_size
    if status.st_size > most_bytes:
        _keep_end(path, status.st_size, most_bytes, lambda kept: write_record(path, Rotation(kept, most_bytes, end)))
        return
    write_record(path, Rotation(status.st_ino, status.st_size, end))
    path.replace(previous(path))


def begin(path: Path, most_bytes: int) -> None:
    """Have the next that is written to a log begin a file; what is no file is put away. Raises OSError. Blocks."""
    clear_trees(path)
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISREG(status.st_mode):
        discard(path)
    elif status.st_size:
        rotate(path, most_bytes // 2)


def clear_trees(path: Path) -> None:
    """Remove the directories that are in the way of a log's rotations; raises OSError. Blocks.

    Who writes to it has other logs to write meanwhile, and lets them lie: what comes is dropped.
    """
    for suffix in SUFFIXES[1:]:
        inside = path.with_name(path.name + suffix)
        if inside.is_dir() and not inside.is_symlink():
            remove_tree(inside)


def _keep_end(path: Path, size: int, length: int, note: Callable[[int], None]) -> None:
    """Keep the end of a file that is too long, one of a time without bounds, and `note` the inode of what is kept."""
    kept = previous(path).with_name(previous(path).name + UNFINISHED)
    kept.unlink(missing_ok=True)
    with (
        os.fdopen(open_regular(path), "rb") as file,
        os.fdopen(os.open(kept, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, MODE), "wb") as end,
    ):
        end.write(os.pread(file.fileno(), length, size - length))
        note(os.fstat(end.fileno()).st_ino)
    kept.replace(previous(path))
    path.unlink()
