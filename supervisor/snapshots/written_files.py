"""What a VMM wrote as a snapshot: looked at before it is believed, and kept as it was looked at.

The VMM is another program, and may be an old, a broken or a hostile one. In a jail it is another user as well, who may
do in its own directory what it likes, at any time. Everything here blocks on the disk.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from supervisor.errors import VmmError
from supervisor.snapshots.layer_files import MODE, complete_opened, make_way, not_kept, remove
from supervisor.snapshots.state_checks import check_state
from supervisor.store.layout import partial
from supervisor.store.records import InstanceRecord, SnapshotFiles
from supervisor.system.regular_files import name_opened, open_regular
from supervisor.system.sparse_files import allocated


class Written(NamedTuple):
    """Where a VMM writes, and whose its files are; they become the supervisor's, and this group's, if that is another.

    `gid` is of one in a jail, None of one that is the supervisor's user's and writes in its instance's directory.
    """

    directory: Path
    uid: int
    gid: int | None = None

    def make_way(self, directory: Path, names: Collection[str]) -> None:
        """Remove what a crash may have left at these names, there or in its instance's directory; StorageError."""
        for one in {self.directory, directory}:
            make_way(one, names)

    def remove(self, directory: Path, names: Collection[str]) -> None:
        """Remove what came to nothing, as far as the file system lets."""
        for one in {self.directory, directory}:
            remove(one, names)


def keep(
    directory: Path, record: InstanceRecord, files: SnapshotFiles, memory_sizes: Collection[int], written: Written
) -> None:
    """Check a state-file and a layer that were written under partial names, and make them durable in `directory`.

    `memory_sizes` are the bytes that the guest's memory may have. Raises VmmError, which says what is wrong with the
    files, and StorageError.
    """
    state, layer = files.state, files.layers[0]
    with contextlib.ExitStack() as stack:
        opened = {}
        try:
            for name in (state, layer):
                opened[name] = open_regular(partial(written.directory / name))
                stack.callback(os.close, opened[name])
                _check_owner(name, os.fstat(opened[name]), written.uid)
                if written.gid is not None:
                    _take(name, opened[name], written.gid)
            check_state(opened[state], record, files)
            _check_layer(layer, os.fstat(opened[layer]), memory_sizes)
        except (OSError, ValueError) as error:
            where = f"{Path(error.filename).name}: " if isinstance(error, OSError) and error.filename else ""
            reason = f"{where}{error.strerror}" if isinstance(error, OSError) else error
            raise VmmError(
                f"{record.name}: what its VMM wrote is no snapshot of it: {reason}; the VM runs on: look at the VMM's "
                "log, or start the supervisor with --firecracker and another one"
            ) from error
        if written.gid is not None:
            _bring(written.directory, directory, opened.items())
        complete_opened(directory, opened)


def _take(name: str, fd: int, gid: int) -> None:
    """Take an open file from the user whose it is; ValueError where that has it open for writing all the same."""
    os.fchown(fd, os.geteuid(), gid)
    os.fchmod(fd, MODE)
    # From here on nobody but the supervisor can open it for writing: who has done so is told by a lease (fcntl(2)).
    try:
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        if error.errno != errno.EAGAIN:
            raise
        raise ValueError(f"{name} is open for writing yet") from error


def _bring(source: Path, directory: Path, opened: Iterable[tuple[str, int]]) -> None:
    """Give open files their partial names in an instance's directory, whatever has these names in a jail by now."""
    for name, fd in opened:
        try:
            name_opened(fd, partial(directory / name))
        except OSError as error:
            raise not_kept(directory, error) from error
        remove(source, (name,))


def _check_owner(name: str, status: os.stat_result, uid: int) -> None:
    if status.st_nlink != 1:
        raise ValueError(f"{name} is a file with {status.st_nlink} names, which others have")
    if status.st_uid != uid:
        raise ValueError(f"{name} is a file of uid {status.st_uid}")


def _check_layer(name: str, status: os.stat_result, memory_sizes: Collection[int]) -> None:
    if status.st_size not in memory_sizes:
        raise ValueError(f"{name} has {status.st_size} bytes, and the memory {max(memory_sizes)}")
    # What a file system keeps of a file beside its bytes is small.
    most = status.st_size + status.st_size // 8 + (1 << 20)
    if allocated(status) > most:
        raise ValueError(f"{name} takes {allocated(status)} bytes of the disk, and has {status.st_size}")
