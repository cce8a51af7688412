"""What a VMM wrote as a snapshot: looked at before it is believed, and kept as it was looked at.

The VMM is another program, and may be an old, a broken or a hostile one. Everything here blocks on the disk.
"""

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from supervisor.errors import VmmError
from supervisor.snapshots.layer_files import complete_opened
from supervisor.snapshots.state_checks import check_state
from supervisor.store.layout import partial
from supervisor.store.records import InstanceRecord, SnapshotFiles
from supervisor.system.regular_files import open_regular
from supervisor.system.sparse_files import allocated


def keep(directory: Path, record: InstanceRecord, files: SnapshotFiles, memory_sizes: Collection[int]) -> None:
    """Check a state-file and a layer that were written under partial names, and make them durable.

    `memory_sizes` are the bytes that the guest's memory may have. Raises VmmError, which says what is wrong with the
    files, and StorageError.
    """
    state, layer = files.state, files.layers[0]
    with contextlib.ExitStack() as stack:
        opened = {}
        try:
            for name in (state, layer):
                opened[name] = open_regular(partial(directory / name))
                stack.callback(os.close, opened[name])
                _check_owner(name, os.fstat(opened[name]))
            check_state(opened[state], record, files)
            _check_layer(layer, os.fstat(opened[layer]), memory_sizes)
        except (OSError, ValueError) as error:
            reason = f"{Path(error.filename).name}: {error.strerror}" if isinstance(error, OSError) else error
            raise VmmError(
                f"{record.name}: what its VMM wrote is no snapshot of it: {reason}; the VM runs on: look at the VMM's "
                "log, or start the supervisor with --firecracker and another one"
            ) from error
        complete_opened(directory, opened)


def _check_owner(name: str, status: os.stat_result) -> None:
    if status.st_nlink != 1:
        raise ValueError(f"{name} is a file with {status.st_nlink} names, which others have")
    if status.st_uid != os.geteuid():
        raise ValueError(f"{name} is a file of uid {status.st_uid}")


def _check_layer(name: str, status: os.stat_result, memory_sizes: Collection[int]) -> None:
    if status.st_size not in memory_sizes:
        raise ValueError(f"{name} has {status.st_size} bytes, and the memory {max(memory_sizes)}")
    # What a file system keeps of a file beside its bytes is small.
    most = status.st_size + status.st_size // 8 + (1 << 20)
    if allocated(status) > most:
        raise ValueError(f"{name} takes {allocated(status)} bytes of the disk, and has {status.st_size}")
