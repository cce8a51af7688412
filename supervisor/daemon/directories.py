"""The two directories of a supervisor: made with the right modes, checked, and held by one supervisor at a time."""

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisor.daemon.run_directory import RunDirectory
from supervisor.jails.roots import API_SOCKET
from supervisor.settings import Settings
from supervisor.store.layout import LOCK, RUN_DIR, SCHEMA, Layout
from supervisor.system.held_directory import HeldDirectory
from supervisor.system.lock_file import LockFile
from supervisor.system.regular_files import read_regular
from supervisor.system.same_file import status_at
from supervisor.system.trusted_paths import Distrusted, distrusted, distrusted_own
from supervisor.system.unix_sockets import connect, held_socket

DATA_MODE = 0o700
"""Snapshots hold the memory of guests."""
PARENT_MODE = 0o755
"""Of what is made above them: whom the run directory lets in must come there."""
RUN_MODE = 0o750
"""The group may reach the socket, whose own mode says what it may do there."""

LONGEST_LINE: Final = 4096 + 1
"""Bytes of what is read of them: a path and a newline."""
SCHEMA_VERSION: Final = 1
"""What the schema file holds, and a newline; a data directory without it has the first."""


class RefusedError(Exception):
    """This supervisor may not start; the message says why, and what would allow it."""


@contextlib.contextmanager
def claim(settings: Settings) -> Iterator[RunDirectory]:
    """Make the data and run directories and hold them while the context lasts; yields the second, to be looked after.

    Where the body raises, directories that were made and that nothing has been put into are removed again.
    Raises RefusedError where a directory cannot be used, another supervisor has the data directory, or a newer one
    has written it.
    """
    made: list[Path] = []
    try:
        _make(settings.data_dir, DATA_MODE, made, "--data-dir")
        _check_own(settings.data_dir, "--data-dir")
        _check_schema(settings.data_dir)
        with _held(settings.data_dir), _locked(settings.data_dir, "--data-dir"):
            _check_sockets(settings.data_dir, settings.run_dir)
            with _written(settings.data_dir / SCHEMA, f"{SCHEMA_VERSION}\n"):
                _make(settings.run_dir, RUN_MODE, made, "--run-dir")
                _check_own(settings.run_dir, "--run-dir")
                if settings.run_dir.samefile(settings.data_dir):
                    raise RefusedError(f"{settings.run_dir} is the data directory; name another with --run-dir")
                _make(settings.socket_path.parent, RUN_MODE, made, "--socket")
                _check_inside(Layout(settings.data_dir, settings.run_dir))
                run_dir = _written(settings.data_dir / RUN_DIR, f"{settings.run_dir}\n")
                with _locked(settings.run_dir, "--run-dir") as lock, run_dir, RunDirectory(settings, lock) as held:
                    yield held
    except BaseException:
        _remove_empty(made)
        raise


def _make(folder: Path, mode: int, made: list[Path], option: str) -> None:
    """Make `folder` with its missing parents, and note in `made` those that were not there.

    Where somebody else could put another in its place, nothing is made.
    """
    missing = [path for path in (folder, *folder.parents) if not os.path.lexists(path)]
    _refuse(distrusted(folder, (os.geteuid(),)), option)
    try:
        for path in reversed(missing):
            path.mkdir(mode=0o700)
            made.append(path)
            # The umask has a part in the mode of what is made, and none in this.
            path.chmod(mode if path == folder else PARENT_MODE)
    except OSError as error:
        raise RefusedError(
            f"{folder} cannot be made: {error.strerror}; name another directory with {option}"
        ) from error
    if not folder.is_dir():
        raise RefusedError(f"{folder} is not a directory; name another with {option}")
    if os.statvfs(folder).f_flag & os.ST_RDONLY:
        raise RefusedError(f"{folder} is in a read-only file system; remount that, or name another with {option}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RefusedError(f"{folder} cannot be written to by uid {os.geteuid()}; name another with {option}")


def _check_schema(data_dir: Path) -> None:
    """Refuse a directory in which a newer supervisor keeps things that this one would not know or would break."""
    found = _schema(data_dir)
    if found and not found.isdecimal():
        raise RefusedError(f"{data_dir / SCHEMA} holds no number: this supervisor would write {SCHEMA_VERSION} there")
    if found and int(found) > SCHEMA_VERSION:
        raise RefusedError(
            f"{data_dir} has schema {found}, and this supervisor knows {SCHEMA_VERSION}: start the newer forktui that "
            "wrote it, or name another with --data-dir"
        )


def _schema(data_dir: Path) -> str:
    """Return what is written in the schema file: nothing where a crash or a full disk kept it from being written."""
    return _read(data_dir / SCHEMA).strip()


def _check_sockets(data_dir: Path, run_dir: Path) -> None:
    """Refuse another run directory than that in which VMs of this data directory listen: they could not be reached."""
    before = Path(_read(data_dir / RUN_DIR))
    if not before.is_absolute() or before == run_dir:
        return
    layout = Layout(data_dir, before)
    count = sum(_listens(layout, instance.name) for instance in layout.instances.glob("*"))
    if count and not (run_dir.exists() and before.samefile(run_dir)):
        vms = "a VM that runs has its socket" if count == 1 else f"{count} VMs that run have their sockets"
        raise RefusedError(f"{data_dir}: {vms} in {before}; give --run-dir {before}")


def _listens(layout: Layout, instance_id: str) -> bool:
    """Return whether a VM runs, whose page map is in the run directory though its socket may be in its jail."""
    if connect(layout.api_socket(instance_id)) == 0:
        return True
    try:
        held = held_socket(layout.jail_root(instance_id), API_SOCKET)
    except OSError:
        return False
    try:
        return connect(Path(f"/proc/self/fd/{held}")) == 0
    finally:
        os.close(held)


def _read(path: Path) -> str:
    """Return the line in a file, or nothing where there is none."""
    try:
        return os.fsdecode(read_regular(path, LONGEST_LINE)).strip("\n")
    except FileNotFoundError:
        return ""
    except ValueError as error:
        raise RefusedError(f"{path}: {error}; remove it") from error


@contextlib.contextmanager
def _written(path: Path, text: str) -> Iterator[None]:
    """Have this in a file, which is removed again where the body raises and it was not there before."""
    there = _read(path)
    if there != text.strip("\n"):
        # On a full disk a supervisor is needed to delete what is on it: the next one writes it.
        with contextlib.suppress(OSError):
            path.write_bytes(os.fsencode(text))
    try:
        yield
    except BaseException:
        if not there:
            path.unlink(missing_ok=True)
        raise


def _check_own(folder: Path, option: str) -> None:
    """Refuse a directory that somebody else can write to: he could put a socket or a lock of his own there."""
    _refuse(distrusted_own(folder), option)


def _check_inside(layout: Layout) -> None:
    """Close to others what is this user's in the directories themselves, and refuse what is somebody else's.

    What is in an image is read as somebody else's.
    """
    for folder in (layout.instances, layout.templates):
        _close_to_others(folder)
        _refuse(distrusted(folder, (os.geteuid(),)), "--data-dir")
    if os.path.lexists(layout.page_maps):
        _check_own(layout.page_maps, "--run-dir")


def _close_to_others(folder: Path) -> None:
    """Take a directory of this user's from others: the umask once had a part in its mode, and nobody else got there."""
    status = status_at(folder)
    if status is not None and stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
        folder.chmod(stat.S_IMODE(status.st_mode) & ~0o022)


def _refuse(found: Distrusted | None, option: str) -> None:
    if found is None:
        return
    remedy = "name another with" if found.owner is None else "have it given to you, or name another with"
    raise RefusedError(f"{found.reason}; {remedy} {option}")


@contextlib.contextmanager
def _locked(folder: Path, option: str) -> Iterator[LockFile]:
    """Have a directory for this supervisor alone; its lock file says whose it is."""
    lock = LockFile(folder / LOCK)
    if not lock.acquire():
        raise RefusedError(
            f"another supervisor (pid {lock.holder}) holds {folder}; stop it, or name another with {option}"
        )
    try:
        lock.sign(f"{os.getpid()}\n")
        yield lock
    finally:
        lock.release()


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a directory against the aging of systemd-tmpfiles."""
    directory = HeldDirectory(folder)
    directory.hold()
    try:
        yield
    finally:
        directory.close()


def _remove_empty(made: list[Path]) -> None:
    for folder in reversed(made):
        inside = [path for path in folder.rglob("*") if path.is_dir()]
        for path in (*sorted(inside, reverse=True), folder):
            with contextlib.suppress(OSError):
                path.rmdir()
