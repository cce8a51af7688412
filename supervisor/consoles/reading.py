"""A log read from a position on, through its rotations; standard library only."""

import os
from pathlib import Path
from typing import NamedTuple

from supervisor.consoles.rotation import KeptFile, end_of, opened
from supervisor.system.same_file import is_at


class Piece(NamedTuple):
    """What was read at once."""

    skipped: int
    """Bytes before it that were dropped before they were read."""
    data: bytes
    anew: bool = False
    """Whether the log was cut, or replaced by another: this follows nothing that was read before."""


class LogReader:
    """Reads a log in order; the file that it is in is held between two reads, until `release`.

    Thus it loses nothing by a rotation. One that is left behind by more than what is kept is told how much that was.
    """

    def __init__(self, path: Path, position: int = 0) -> None:
        self.path = path
        self.position = position
        self._held: KeptFile | None = None

    def read(self, most: int) -> Piece:
        """Return what follows, `most` bytes of it, and nothing at the end; blocks on the disk, and raises OSError.

        A log that was cut, or replaced by another, is read from its beginning.
        """
        held = self._held
        if held is not None:
            piece = self._from(held, most)
            if piece.data or self._in_place(held):
                return piece
            # What came between the look at its end and the one at its name was added to it: hence a second look.
            piece = self._from(held, most)
            if piece.data:
                return piece
            self.release()
        skipped, anew = self._find(held)
        data = b"" if self._held is None else self._from(self._held, most).data
        return Piece(skipped, data, anew)

    def tail(self, most: int) -> bytes:
        """Return the last bytes, at most `most`, and go on after them; raises OSError."""
        self.release()
        with opened(self.path) as files:
            pieces = []
            for file in reversed(files):
                length = min(file.status.st_size, most)
                pieces.append(os.pread(file.descriptor, length, file.status.st_size - length))
                most -= length
            if files:
                self._hold(files[-1])
                self.position = files[-1].end
        if not files:
            self.position = end_of(self.path)
        return b"".join(reversed(pieces))

    def release(self) -> None:
        """Let go of the file, and go on by the position."""
        if self._held is not None:
            os.close(self._held.descriptor)
            self._held = None

    def _in_place(self, held: KeptFile) -> bool:
        return is_at(self.path, held.status)

    def _from(self, held: KeptFile, most: int) -> Piece:
        cut = held.start + os.fstat(held.descriptor).st_size < self.position
        if cut:
            self.position = held.start
        data = os.pread(held.descriptor, most, self.position - held.start)
        self.position += len(data)
        return Piece(0, data, cut)

    def _find(self, last: KeptFile | None) -> tuple[int, bool]:
        """Hold the file that the position is in, or the one after the `last`.

        Returns how many bytes are missing, and whether it is another log than it was.
        """
        with opened(self.path) as files:
            if not files:
                return 0, False
            inodes = [file.status.st_ino for file in files]
            if last is not None and last.status.st_ino in inodes:
                after = files[inodes.index(last.status.st_ino) + 1 :]
                self._hold(after[0] if after else files[-1])
                self.position = after[0].start if after else self.position
                return 0, False
            anew = files[-1].end < self.position or (last is not None and files[-1].start < self.position)
            if anew:
                self.position = files[-1].start
            skipped = max(files[0].start - self.position, 0)
            self.position += skipped
            self._hold(next(file for file in reversed(files) if file.start <= self.position))
            return skipped, anew

    def _hold(self, file: KeptFile) -> None:
        self._held = file._replace(descriptor=os.dup(file.descriptor))
