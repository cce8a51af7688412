"""The two directories of a supervisor: made with the right modes, checked, and held by one supervisor at a time."""

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from supervisor.settings import Settings

DATA_MODE = 0o700
"""Snapshots hold the memory of guests."""
RUN_MODE = 0o750
"""The group may reach the socket, whose own mode says what it may do there."""


class RefusedError(Exception):
    """This supervisor may not start; the message says why, and what would allow it."""


@contextlib.contextmanager
def claim(settings: Settings) -> Iterator[None]:
    """Make the data and run directories and hold them while the context lasts.

    Where the body raises, directories that were made and that nothing has been put into are removed again.
    Raises RefusedError where a directory cannot be used, or another supervisor has the data directory.
    """
    made: list[Path] = []
    try:
        _make(settings.data_dir, DATA_MODE, made, "--data-dir")
        with _locked(settings.data_dir):
            _make(settings.run_dir, RUN_MODE, made, "--run-dir")
            _check_owner(settings.run_dir)
            _make(settings.socket_path.parent, RUN_MODE, made, "--socket")
            yield
    except BaseException:
        _remove_empty(made)
        raise


def _make(folder: Path, mode: int, made: list[Path], option: str) -> None:
    """Make `folder` with its missing parents, and note in `made` the topmost directory that was not there."""
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    try:
        for path in reversed(missing):
            path.mkdir(mode=0o755)
            made.append(path)
        if missing:
            folder.chmod(mode)
    except OSError as error:
        raise RefusedError(
            f"{folder} cannot be made: {error.strerror}; name another directory with {option}"
        ) from error
    if not folder.is_dir():
        raise RefusedError(f"{folder} is not a directory; name another with {option}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RefusedError(f"{folder} cannot be written to by uid {os.geteuid()}; name another with {option}")


def _check_owner(run_dir: Path) -> None:
    """Refuse a directory of somebody else's: who owns it could put a socket of his own there (it may be below /tmp)."""
    status = run_dir.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise RefusedError(f"{run_dir} belongs to uid {status.st_uid} or is a link; name another with --run-dir")


@contextlib.contextmanager
def _locked(data_dir: Path) -> Iterator[None]:
    """Hold the lock file's flock, which the kernel releases however this process ends; the file says who has it."""
    path = data_dir / "lock"
    existed = path.exists()
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            raise RefusedError(
                f"another supervisor (pid {holder}) holds {data_dir}; stop it, or name another with --data-dir"
            ) from error
        if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise RefusedError(f"a supervisor that held {data_dir} has ended just now; try again")
        os.truncate(descriptor, 0)
        # On a full disk a supervisor is needed to delete what is on it.
        with contextlib.suppress(OSError):
            os.pwrite(descriptor, b"%d\n" % os.getpid(), 0)
        try:
            yield
        except BaseException:
            if not existed:
                path.unlink()
            raise
    finally:
        os.close(descriptor)


def _remove_empty(made: list[Path]) -> None:
    for folder in reversed(made):
        inside = [path for path in folder.rglob("*") if path.is_dir()]
        for path in (*sorted(inside, reverse=True), folder):
            with contextlib.suppress(OSError):
                path.rmdir()
