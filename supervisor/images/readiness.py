"""Whether an instance's directory has what its VMM is about to open, and the directories for what that makes itself.

Every function blocks on the disk.
"""

import contextlib
import os
import stat
from pathlib import Path

from supervisor.errors import MachineFileError, check_descriptors
from supervisor.images.machine_files import KERNELS, machine_files, own_config
from supervisor.images.machine_names import made_by_vmm
from supervisor.images.vm_json import VmJson
from supervisor.store.records import DiskMark, SnapshotFiles
from supervisor.system.regular_files import make_directories, open_within
from supervisor.system.same_file import status_at


def disk_marks(config: VmJson | None, directory: Path) -> tuple[DiskMark, ...]:
    """Return what is to be noted with a snapshot of the disks that a configuration names; raises OSError."""
    disks = [file for file in machine_files(config) if file.target not in KERNELS] if config is not None else []
    return tuple(DiskMark(name, _size(directory, name)) for name in dict.fromkeys(file.source for file in disks))


def own_disk_marks(name: str, directory: Path, vmm: int | None) -> tuple[DiskMark, ...]:
    """Return the same of the directory of the instance `name`; MachineFileError where a disk is gone or another.

    `vmm` is the pid of its VMM, where that opens its disks: a snapshot goes with what it has written to.
    """
    try:
        config = own_config(directory)
        if config is not None and vmm is not None:
            _check_held(name, directory, config, vmm)
        return disk_marks(config, directory)
    except OSError as error:
        check_descriptors(error, f"{name}: {error.filename}")
        raise MachineFileError(
            f"{name}: no snapshot of it could be restored: {error.filename}: {error.strerror}; put it back"
        ) from error


def check_machine(name: str, directory: Path, snapshot: SnapshotFiles | None) -> None:
    """Raise MachineFileError where a file of the instance `name` is gone, or no more what its snapshot was taken with.

    Without a snapshot it is to boot: its disks may have any size then, and it needs its kernel too.
    """
    config = own_config(directory)
    noted = {disk.name: disk.size for disk in snapshot.disks} if snapshot is not None else {}
    for file in machine_files(config) if config is not None else ():
        if snapshot is not None and file.target in KERNELS:
            continue
        path = directory / file.source
        try:
            size = _size(directory, file.source)
        except FileNotFoundError as error:
            raise MachineFileError(f"{name}: {path} is gone; put it back") from error
        except OSError as error:
            check_descriptors(error, f"{name}: {path}")
            raise MachineFileError(f"{name}: {path} cannot be used: {error.strerror}; put it back") from error
        before = noted.get(file.source, size)
        if size != before:
            how = "grown" if size > before else "shrunk"
            raise MachineFileError(
                f"{name}: the disk {path} has {how} since its snapshot: it has {size} bytes, and had {before}; "
                "put it back as it was"
            )


def make_way_for_vmm(name: str, directory: Path) -> None:
    """Make the directories in which a VMM makes the sockets that its configuration names.

    Raises MachineFileError, also where something else than a socket is in the place of one.
    """
    config = own_config(directory)
    for path in made_by_vmm(config) if config is not None else ():
        try:
            make_directories(directory, path.parent)
        except OSError as error:
            raise MachineFileError(
                f"{name}: {directory / path.parent} cannot be made: {error.strerror}; remove what is in its place"
            ) from error
        there = status_at(directory / path)
        if there is not None and not stat.S_ISSOCK(there.st_mode):
            raise MachineFileError(f"{name}: {directory / path} is in the way of a socket of its VMM; remove it")


def _check_held(name: str, directory: Path, config: VmJson, vmm: int) -> None:
    """Raise MachineFileError for a drive that a VMM does not have open.

    Nothing is told where one may not look, or the VMM has ended: it will be asked for more than that.
    """
    try:
        held = _open_files(vmm)
    except (FileNotFoundError, PermissionError, ProcessLookupError):
        return
    for drive in config.drives:
        if drive.path_on_host is not None and _identity(_status(directory, drive.path_on_host)) not in held:
            raise MachineFileError(
                f"{name}: no snapshot of it could be restored: {directory / drive.path_on_host} was replaced while its "
                f"VMM (pid {vmm}) has the file that was there open; put that back, or stop the instance"
            )


def _open_files(pid: int) -> set[tuple[int, int]]:
    found = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.add(_identity(descriptor.stat()))
    return found


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _size(directory: Path, name: str) -> int:
    return _status(directory, name).st_size


def _status(directory: Path, name: str) -> os.stat_result:
    fd = open_within(directory, name)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)
