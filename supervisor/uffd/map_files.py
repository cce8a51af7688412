"""The files of page maps: the supervisor makes them, puts them in their place and removes them.

A page server writes in what it was handed a descriptor of, and needs no right to the directory. Standard library only.
"""

import contextlib
import os
from collections.abc import Iterator
from itertools import count, filterfalse, takewhile
from pathlib import Path
from typing import Final

from supervisor.errors import PageServerError
from supervisor.system.held_directory import HeldDirectory
from supervisor.system.same_file import status_at
from supervisor.system.unix_sockets import remove_file

UNFINISHED: Final = ".unfinished"
"""What stands behind the name of a page map until it is whole."""
ASIDE: Final = ".aside."
"""What stands behind it, and before a number, where something else lay in its place."""


class NewMapFile:
    """An empty file for a page map, which is not at its path yet."""

    def __init__(self, path: Path) -> None:
        """Make it; raises OSError."""
        self._path = path
        self._unfinished = _unfinished(path)
        self._unfinished.unlink(missing_ok=True)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        self.descriptor = os.open(self._unfinished, flags, 0o600)
        """For reading and writing."""
        self._placed = False

    def place(self) -> None:
        """Have it at its path, now that it is whole; what else lies there is set aside. Raises PageServerError."""
        try:
            _set_aside(self._path)
            self._unfinished.rename(self._path)
        except OSError as error:
            raise PageServerError(f"page map {self._path} cannot be put in its place: {error.strerror}") from error
        self._placed = True

    def close(self) -> None:
        """Close it, and remove it where it was not placed."""
        os.close(self.descriptor)
        if not self._placed:
            with contextlib.suppress(OSError):
                self._unfinished.unlink()


@contextlib.contextmanager
def new_map_file(path: Path) -> Iterator[NewMapFile]:
    """Give a file for a page map, which is removed with the context unless it was placed; raises OSError."""
    file = NewMapFile(path)
    try:
        yield file
    finally:
        file.close()


@contextlib.contextmanager
def lock_of(directory: Path) -> Iterator[int]:
    """Give a descriptor that holds a directory against systemd-tmpfiles, for as long as anybody has it.

    Raises OSError.
    """
    held = HeldDirectory(directory)
    try:
        yield held.hold()
    finally:
        held.close()


def is_in_place(path: Path, device_and_inode: tuple[int, int], size: int) -> bool:
    """Return whether this file is at a path, as long as it was made (bytes)."""
    found = status_at(path)
    return found is not None and (found.st_dev, found.st_ino) == device_and_inode and found.st_size == size


def remove_page_map(path: Path) -> None:
    """Remove a page map whose fork is gone, with what was made beside it or set aside.

    What is a directory is somebody's, and stays. Raises OSError where anything else cannot be removed.
    """
    for gone in (path, _unfinished(path), *takewhile(os.path.lexists, _asides(path))):
        remove_file(gone)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}{UNFINISHED}")


def _asides(path: Path) -> Iterator[Path]:
    """Yield the names for what is set aside, the first one first."""
    return (path.with_name(f"{path.name}{ASIDE}{number}") for number in count())


def _set_aside(path: Path) -> None:
    """Move what is in the way, which may be somebody's: it is neither followed nor removed."""
    if os.path.lexists(path):
        path.rename(next(filterfalse(os.path.lexists, _asides(path))))
