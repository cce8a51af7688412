"""One log: its last lines, and those that are added to it."""

import asyncio
import contextlib
import errno
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path
from typing import Final

from supervisor.consoles.reading import LogReader
from supervisor.errors import StorageError
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
    """Reads a log as it grows, through its rotations, from where it last read; one that does not exist yet is empty."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._reader = LogReader(path)
        self._unfinished = b""

    def tail(self, count: int) -> list[str]:
        """Return the last `count` finished lines and go on after the end; blocks on the disk.

        What is no longer kept of them is told in a line before the first.
        """
        length = min(_FIRST_READ, TAIL_LIMIT)
        with _told_what_it_is(self.path):
            while len(data := self._reader.tail(length)) == length < TAIL_LIMIT and data.count(b"\n") <= count:
                length = min(2 * length, TAIL_LIMIT)
        dropped = self._reader.position - len(data) if len(data) < length else 0
        lines = self._finish(data)
        if dropped > 0 and len(lines) < count:
            lines = [_dropped(dropped), *lines]
        return lines[-count:] if count else []

    def unfinished(self) -> str:
        """Return what follows the last line end."""
        return _text(self._unfinished)

    def more(self) -> list[str]:
        """Return lines that were finished since the last read, none at the end of the log; blocks on the disk.

        A log that was replaced or cut is read from its start. What was dropped unread is told in a line.
        """
        with _told_what_it_is(self.path):
            skipped, data, anew = self._reader.read(_READ)
        if not skipped and not anew:
            return self._finish(data)
        torn, self._unfinished = [_text(self._unfinished)] if self._unfinished and skipped else [], b""
        told = [_dropped(skipped)] if skipped else []
        return [*torn, *told, *self._finish(data)]

    def close(self) -> None:
        """Let go of the file that was read last."""
        self._reader.release()

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


@contextlib.contextmanager
def _told_what_it_is(path: Path) -> Iterator[None]:
    """Raise StorageError where there is something else in a log's place."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise StorageError(f"{path}: {error.strerror}: remove it") from error


def _dropped(count: int) -> str:
    return f"-- {count} bytes before this are no longer kept --"


def _cut(line: bytes) -> list[bytes]:
    return [line[start : start + LINE_LIMIT] for start in range(0, max(len(line), 1), LINE_LIMIT)]


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
