"""The files of memory images: completed, linked, merged, removed. Every function blocks on the disk."""

import contextlib
import errno
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from supervisor.concurrency.progress import advance, counted, step
from supervisor.errors import StorageError
from supervisor.store.layout import PARTIAL, SNAPSHOT_FILE, partial
from supervisor.store.registry import sync_directory
from supervisor.system.regular_files import discard, open_regular
from supervisor.system.same_file import is_at
from supervisor.system.sparse_files import copy_range, created, opened
from supervisor.uffd.memory_image import NO_LAYER, data_extents, resolve

MODE: Final = 0o440


def complete(directory: Path, names: Iterable[str]) -> None:
    """Make files that were written under partial names durable, read-only, and only then known by their names.

    Raises StorageError.
    """
    with contextlib.ExitStack() as stack:
        try:
            files = {name: stack.enter_context(opened(partial(directory / name))) for name in names}
        except OSError as error:
            raise not_kept(directory, error) from error
        complete_opened(directory, files)


def complete_opened(directory: Path, files: Mapping[str, int]) -> None:
    """Do the same with files of which descriptors are given; raises StorageError where a name is another file's."""
    try:
        for name, fd in files.items():
            step("sync layer")
            os.fsync(fd)
            os.fchmod(fd, MODE)
            step("rename layer")
            partial(directory / name).rename(directory / name)
            if not is_at(directory / name, os.fstat(fd)):
                raise OSError(errno.ESTALE, f"{name} was replaced by another file meanwhile")
        sync_directory(directory)
    except OSError as error:
        raise not_kept(directory, error) from error


def remove(directory: Path, names: Iterable[str]) -> None:
    """Remove names, and partial ones, as far as the file system lets; a file goes with its last name."""
    for path in _both(directory, names):
        with contextlib.suppress(OSError):
            discard(path)


def sweep(directory: Path, kept: Collection[str]) -> None:
    """Remove state-files and layers that a crash left without a snapshot to belong to."""
    for path in directory.iterdir():
        # A disk of the guest's own may be called state.img.
        if SNAPSHOT_FILE.fullmatch(path.name) and path.name not in kept:
            with contextlib.suppress(OSError):
                discard(path)


def make_way(directory: Path, names: Iterable[str]) -> None:
    """Remove what a crash may have left at names that are about to be taken; raises StorageError where it stays.

    A diff snapshot would be written into it.
    """
    remove(directory, names)
    for path in _both(directory, names):
        if os.path.lexists(path):
            raise StorageError(f"{path}: it is in the way of a snapshot; remove it, and make {directory} writable")


def link(names: Iterable[str], source: Path, target: Path) -> None:
    """Give files in the directory `source` the same names in the directory `target` as well; raises OSError."""
    for name in names:
        # Not what a link of that name leads to, if a VMM has put one there.
        os.link(source / name, target / name, follow_symlinks=False)
        os.close(open_regular(target / name))


def merge(layers: Sequence[Path], target: Path) -> None:
    """Write the image of `layers`, newest first, to a new file; what none of them has stays a hole. It is not synced.

    Blocks are shared where the file system can. Raises OSError; on failure there is no file at `target`.
    """
    with contextlib.ExitStack() as stack:
        fds = [stack.enter_context(opened(layer)) for layer in layers]
        size, *others = (os.fstat(fd).st_size for fd in fds)
        if any(other != size for other in others):
            raise OSError(errno.EINVAL, "its layers differ in size: one of them is truncated or of another VM")
        starts, owners = resolve([data_extents(fd, size) for fd in fds], size)
        target_fd = stack.enter_context(created(target))
        os.ftruncate(target_fd, size)
        runs = [run for run in zip(starts, [*starts[1:], size], owners, strict=True) if run[2] != NO_LAYER]
        with counted(sum(end - start for start, end, _ in runs), "bytes"):
            for start, end, owner in runs:
                copy_range(fds[owner], target_fd, start, end, advance)


def not_kept(directory: Path, error: OSError) -> StorageError:
    """Return the error of a snapshot that the disk does not take."""
    return StorageError(
        f"{directory}: a snapshot cannot be kept: {error.strerror}; free space or make the data directory writable"
    )


def _both(directory: Path, names: Iterable[str]) -> list[Path]:
    return [path for name in names for path in (directory / name, partial(directory / name))]


def tells_pages_apart(directory: Path, page_size: int) -> bool:
    """Return whether the file system there has holes as small as a page, so that a diff layer shows what it has.

    Where its blocks are larger (ZFS, some XFS and btrfs), a page written alone looks like several, the others zero.
    """
    probe = directory / f"probe{PARTIAL}"
    probe.unlink(missing_ok=True)
    with created(probe) as fd:
        os.ftruncate(fd, 1024 * page_size)
        written = [(page * page_size, (page + 1) * page_size) for page in (1, 511, 1022)]
        for start, _ in written:
            os.pwrite(fd, b"\1" * page_size, start)
        os.fsync(fd)
        with opened(probe) as reader:
            found = list(data_extents(reader, 1024 * page_size))
    probe.unlink()
    return found == written
