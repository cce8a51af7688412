"""Where in all that was ever written to a log its files begin; standard library only.

A log is `<name>` and, before that, `<name>.1`. Beside them `<name>.rotation` says of the file that is, or is about to
be, `<name>.1` at which position it ends: there `<name>` begins. What is before `<name>.1` is dropped, and its start is
the number of those bytes. The record of a rotation is written before the rename, and names the file by its inode: it
holds on both sides of the rename, whoever is killed in between.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from supervisor.system.control_lines import decode
from supervisor.system.regular_files import open_regular
from supervisor.system.same_file import is_at

PREVIOUS = ".1"
ROTATION = ".rotation"
UNFINISHED = ".unfinished"
SUFFIXES = ("", PREVIOUS, ROTATION, PREVIOUS + UNFINISHED, ROTATION + UNFINISHED)
"""Of the names in a log's directory that are its."""

_RECORD_BYTES = 256
_MOST = 1 << 62
_TRIES = 8
"""Looks at a log that is rotated meanwhile, each of which sees a later one; a writer that is so fast drops most."""


class Rotation(NamedTuple):
    """The last rotation of a log."""

    inode: int
    length: int
    """Bytes of that file."""
    end: int
    """The position after its last byte."""


class KeptFile(NamedTuple):
    """One open file of a log."""

    descriptor: int
    status: os.stat_result
    start: int
    """The position of its first byte."""

    @property
    def end(self) -> int:
        """The position after its last byte."""
        return self.start + self.status.st_size


def previous(path: Path) -> Path:
    """Return the older file of a log."""
    return path.with_name(path.name + PREVIOUS)


def record(path: Path) -> Path:
    """Return where the last rotation of a log is noted."""
    return path.with_name(path.name + ROTATION)


@contextlib.contextmanager
def opened(path: Path) -> Iterator[list[KeptFile]]:
    """Open the files of a log, the older first, with their positions; raises OSError where `path` is no file.

    The descriptors are closed with the context.
    """
    with ExitStack() as stack:
        for _ in range(_TRIES):
            files, consistent = _look(path, stack.enter_context(ExitStack()))
            if consistent:
                break
        yield files


def end_of(path: Path) -> int:
    """Return the position after the last byte of a log, 0 of one that is not there; raises OSError."""
    with opened(path) as files:
        if files:
            return files[-1].end
    found = read_record(path)
    return found.end if found else 0


def start_of(path: Path, status: os.stat_result) -> int:
    """Return the position of the first byte of a log's newest file, which has this status."""
    found = read_record(path)
    if found is None:
        return 0
    return found.end - found.length if found.inode == status.st_ino else found.end


def read_record(path: Path) -> Rotation | None:
    """Return the last rotation of a log; None where there was none, or its record is none."""
    try:
        with os.fdopen(open_regular(record(path)), "rb") as file:
            found = Rotation(**decode(file.read(_RECORD_BYTES)))
    except (OSError, ValueError, TypeError):
        return None
    sound = all(isinstance(one, int) and 0 <= one < _MOST for one in found) and found.length <= found.end
    return found if sound else None


def write_record(path: Path, rotation: Rotation) -> None:
    """Note a rotation, before it is done; raises OSError, also where a directory is in the way."""
    target = record(path)
    unfinished = target.with_name(target.name + UNFINISHED)
    unfinished.unlink(missing_ok=True)
    fd = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        os.write(fd, json.dumps(rotation._asdict()).encode())
    finally:
        os.close(fd)
    unfinished.replace(target)


def _look(path: Path, stack: ExitStack) -> tuple[list[KeptFile], bool]:
    """Return the files as they are found, and whether none was renamed meanwhile."""
    newest = _open(path, stack)
    found = read_record(path)
    try:
        older = _open(previous(path), stack)
    except OSError:
        older = None
    start = found.end if found else 0
    if newest and found and found.inode == newest[1].st_ino:
        start = found.end - found.length
    files = [KeptFile(*older, start - older[1].st_size)] if older else []
    files += [KeptFile(*newest, start)] if newest else []
    consistent = all(
        is_at(at, one[1]) if one else not at.is_file() for at, one in ((path, newest), (previous(path), older))
    )
    return files, consistent


def _open(path: Path, stack: ExitStack) -> tuple[int, os.stat_result] | None:
    try:
        descriptor = open_regular(path)
    except FileNotFoundError:
        return None
    stack.callback(os.close, descriptor)
    return descriptor, os.fstat(descriptor)
