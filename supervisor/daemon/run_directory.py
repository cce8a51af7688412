"""The run directory of a supervisor that runs: held, looked at, and made again where somebody has removed it."""

import contextlib
import os
import stat
import time
from types import TracebackType
from typing import Final, NamedTuple, Self

from supervisor.settings import Settings
from supervisor.store.layout import PAGES_MODE, Layout
from supervisor.system.held_directory import HeldDirectory
from supervisor.system.lock_file import LockFile
from supervisor.system.trusted_paths import distrusted_own

SETTLED_NS: Final = 100_000_000
"""A directory whose mtime is so far from now cannot change any more and keep it: the kernel's clock for it ticks more
often, and one in the future is of before the clock was set back."""


class Mended(NamedTuple):
    """What of the run directory is there again, and what could not be made, each in words."""

    made: tuple[str, ...]
    failed: tuple[str, ...]


class RunDirectory:
    """The directory, the one in it for page maps, and its lock file; every method may block."""

    def __init__(self, settings: Settings, lock: LockFile) -> None:
        """`lock` is held already, and released by who gave it."""
        self.path = settings.run_dir
        self._lock = lock
        self._run = HeldDirectory(settings.run_dir)
        self._pages = HeldDirectory(Layout(settings.data_dir, settings.run_dir).page_maps)
        self._seen: list[tuple[int, int, int]] | None = None

    def __enter__(self) -> Self:
        self._run.hold()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._pages.close()
        self._run.close()

    def changed(self) -> bool:
        """Return whether anything has come or gone there since the last time that this was asked."""
        try:
            found = [directory.path.lstat() for directory in (self._run, self._pages)]
        except OSError:
            return True
        seen = [(one.st_dev, one.st_ino, one.st_mtime_ns) for one in found]
        same = seen == self._seen
        settled = all(abs(time.time_ns() - one.st_mtime_ns) > SETTLED_NS for one in found)
        self._seen = seen if settled else None
        return not same

    def look_again(self) -> None:
        """Have `changed` say so once more: something could not be put right."""
        self._seen = None

    def mend(self) -> Mended:
        """Make again what is missing, with the mode and the group that it had, and hold it."""
        made: list[str] = []
        parts = (("the directory", self._run), ("its lock file", self._lock), ("its pages directory", self._pages))
        for name, part in parts:
            if part.in_place:
                continue
            first = part is self._pages and self._pages.status is None
            try:
                if isinstance(part, HeldDirectory):
                    _make(part)
                else:
                    _take(part)
            except OSError as error:
                return Mended(tuple(made), (f"{name} ({error.strerror})",))
            if not first:
                made.append(name)
        return Mended(tuple(made), ())


def _take(lock: LockFile) -> None:
    if not lock.acquire():
        raise OSError(0, f"another supervisor, pid {lock.holder}, has it")
    lock.sign(f"{os.getpid()}\n")


def _make(directory: HeldDirectory) -> None:
    """Make and hold a directory; what somebody else has made there is taken if it is this user's, else OSError."""
    before, path = directory.status, directory.path
    try:
        path.mkdir(mode=0o700)
    except FileExistsError as error:
        if (found := distrusted_own(path)) is not None:
            raise OSError(0, found.reason) from error
    else:
        if before is not None:
            with contextlib.suppress(OSError):
                os.chown(path, -1, before.st_gid, follow_symlinks=False)
        path.chmod(PAGES_MODE if before is None else stat.S_IMODE(before.st_mode))
    directory.hold()
