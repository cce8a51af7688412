"""One log: its last lines, and those that are added to it."""

import asyncio
import errno
import os
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import BinaryIO, Final

from supervisor.errors import StorageError
from supervisor.system.regular_files import open_regular
from supervisor.system.watching import Watch

TAIL_LIMIT: Final = 8 << 20
"""Bytes from the end of a log in which its last lines are looked for."""
LINE_LIMIT: Final = 64 << 10
"""Bytes; what a guest prints without a line end is cut here."""

_FIRST_READ: Final = 64 << 10
_READ: Final = 1 << 20
_GATHER_SECONDS: Final = 0.2
_LOOK_SECONDS: Final = 0.5


class LogFile:
    """Reads a log as it grows, from where it last read; a log that does not exist yet is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._inode: int | None = None
        self._offset = 0
        self._unfinished = b""

    def tail(self, count: int) -> list[str]:
        """Return the last `count` finished lines and go on after the end; blocks on the disk."""
        try:
            with _opened(self.path) as file:
                status = os.fstat(file.fileno())
                data = _last_bytes(file.fileno(), status.st_size, count)
        except FileNotFoundError:
            return []
        self._inode, self._offset = status.st_ino, status.st_size
        lines = self._finish(data)
        return lines[-count:] if count else []

    def unfinished(self) -> str:
        """Return what follows the last line end."""
        return _text(self._unfinished)

    def more(self) -> list[str]:
        """Return lines that were finished since the last read, none at the end of the log; blocks on the disk.

        A log that was replaced or cut is read from its start.
        """
        try:
            with _opened(self.path) as file:
                status = os.fstat(file.fileno())
                if status.st_ino != self._inode or status.st_size < self._offset:
                    self._inode, self._offset, self._unfinished = status.st_ino, 0, b""
                data = os.pread(file.fileno(), _READ, self._offset)
        except FileNotFoundError:
            return []
        self._offset += len(data)
        return self._finish(data)

    def _finish(self, data: bytes) -> list[str]:
        """Return the finished lines in what was kept and `data`, and keep the rest."""
        *lines, rest = (self._unfinished + data).split(b"\n")
        pieces = [piece for line in lines for piece in _cut(line)]
        *full, self._unfinished = _cut(rest)
        return [_text(piece) for piece in (*pieces, *full)]


async def follow(log: LogFile) -> AsyncGenerator[list[str], None]:
    """Yield the lines that are added to a log, and nothing now and then, so that the reader may look whether to go on.

    Ends when the log's directory is gone.
    """
    watch = Watch()
    try:
        while True:
            await asyncio.to_thread(watch.set, (log.path.parent,))
            while lines := await asyncio.to_thread(log.more):
                yield lines
            if not await asyncio.to_thread(log.path.parent.is_dir):
                return
            yield []
            await watch.wait(_LOOK_SECONDS, _GATHER_SECONDS)
    finally:
        watch.close()


def _opened(path: Path) -> BinaryIO:
    """Open a log; raises OSError, and StorageError where there is something else in its place."""
    try:
        return os.fdopen(open_regular(path), "rb")
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise StorageError(f"{path}: {error.strerror}: remove it") from error


def _last_bytes(descriptor: int, size: int, count: int) -> bytes:
    """Return the end of a file with `count` line ends and some before it, as far as TAIL_LIMIT goes."""
    length = _FIRST_READ
    while True:
        length = min(length, size, TAIL_LIMIT)
        data = os.pread(descriptor, length, size - length)
        if length in (size, TAIL_LIMIT) or data.count(b"\n") > count:
            return data
        length *= 2


def _cut(line: bytes) -> list[bytes]:
    return [line[start : start + LINE_LIMIT] for start in range(0, max(len(line), 1), LINE_LIMIT)]


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
