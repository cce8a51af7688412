"""The files of a machine: what its vm.json names, and how they come into an instance's directory.

Every function that takes a path blocks on the disk.
"""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from supervisor.concurrency.progress import advance
from supervisor.errors import MachineFileError, check_descriptors
from supervisor.images.vm_json import IGNORED_SECTIONS, OWN_SECTION, VmJson, parse_vm_json
from supervisor.models.base import MIB
from supervisor.store.layout import INITRD, KERNEL, VM_JSON, disk_file, pmem_file
from supervisor.system.regular_files import link_opened, make_directories, open_within, read_within
from supervisor.system.sparse_files import allocated, copy_opened
from supervisor.vmm.configuration import LARGEST_JSON

KERNELS: Final = (KERNEL, INITRD)
"""What `machine_files` calls that is needed to boot only."""


@dataclass(frozen=True)
class PlacedFile:
    """A file of a machine: where it is in its image, and what the directory of an instance that boots calls it."""

    source: str
    target: str
    writable: bool


def read_vm_json(directory: Path) -> VmJson:
    """Return what is in a directory's vm.json; raises OSError, and ValueError with one line."""
    return parse_vm_json(read_within(directory, VM_JSON, LARGEST_JSON))


def bootable(directory: Path) -> bool:
    """Return whether an instance's directory says how to boot it."""
    return os.path.lexists(directory / VM_JSON)


def machine_files(config: VmJson) -> Iterator[PlacedFile]:
    """Yield the files that a VM's configuration names; placed ones are named as the placed configuration names them."""
    yield PlacedFile(config.boot_source.kernel_image_path, KERNEL, writable=False)
    if config.boot_source.initrd_path is not None:
        yield PlacedFile(config.boot_source.initrd_path, INITRD, writable=False)
    for drive in config.drives:
        if drive.path_on_host is not None:
            yield PlacedFile(drive.path_on_host, disk_file(drive.drive_id), writable=not drive.is_read_only)
    for device in config.pmem:
        yield PlacedFile(device.path_on_host, pmem_file(device.id), writable=not device.read_only)


def _kept(config: VmJson) -> Iterator[PlacedFile]:
    """Yield the same files under the names that they have: several devices may only read one of them."""
    return (replace(file, target=file.source) for file in machine_files(config))


def place_machine(
    config: VmJson,
    source: Path,
    directory: Path,
    machine: Mapping[str, Any],
    *,
    renamed: bool,
    boot_args: str | None = None,
) -> None:
    """Put into an instance's directory what its VMM boots: vm.json, kernel, initrd and disks, from `source`.

    `machine` goes over what the configuration says of its machine-config, `boot_args` in the place of its own. Files
    keep their names unless they are `renamed`. Those that the guest cannot write become hard links where that is
    possible: do not change an image's files in place. Raises OSError.
    """
    document: dict[str, Any] = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for section in IGNORED_SECTIONS:
        document.pop(section, None)
    # What its guest is ready by at a boot is in an instance's record.
    own = document.pop(OWN_SECTION, {})
    own.pop("readiness", None)
    if own:
        document[OWN_SECTION] = own
    document["machine-config"] = {**document.get("machine-config", {}), **machine}
    if boot_args is not None:
        document["boot-source"]["boot_args"] = boot_args
    if isinstance(config.cpu_config, str):
        # Only --config-file takes a path.
        document["cpu-config"] = json.loads(read_within(source, config.cpu_config, LARGEST_JSON))
    if renamed:
        _rename(document)
    for file in dict.fromkeys(machine_files(config) if renamed else _kept(config)):
        place(source, file.source, directory, file.target, writable=file.writable)
    (directory / VM_JSON).write_text(json.dumps(document, indent=1) + "\n")


def copy_machine(source: Path, fork: Path) -> None:
    """Put into a fork's directory what its source's VMM has: vm.json, kernel and initrd, and its disks as they are now.

    The source must not be running. One made from a snapshot alone has none of these. Raises OSError.
    """
    copy_disks(source, fork, copy_fixed(source, fork))


def own_config(directory: Path) -> VmJson | None:
    """Return what an instance's vm.json says, None without one; MachineFileError where it is no more what it was."""
    return _own(directory)[1] if bootable(directory) else None


def _own(directory: Path) -> tuple[bytes, VmJson]:
    try:
        text = read_within(directory, VM_JSON, LARGEST_JSON)
        return text, parse_vm_json(text)
    except OSError as error:
        check_descriptors(error, str(directory / VM_JSON))
        raise MachineFileError(f"{directory / VM_JSON}: {error.strerror}; put it back") from error
    except ValueError as error:
        raise MachineFileError(f"{directory / VM_JSON}: {error}; put it back") from error


def writable_disks(directory: Path) -> tuple[str, ...]:
    """Return the names of the files in an instance's directory that its guest can write, as far as vm.json says."""
    config = own_config(directory)
    return tuple(file.source for file in machine_files(config) if file.writable) if config is not None else ()


def memory_sizes(directory: Path, size_bytes: int) -> frozenset[int]:
    """Return how many bytes a layer may have of an instance whose memory has `size_bytes`, as far as vm.json says.

    Firecracker writes what may be plugged into its guest as well.
    """
    config = own_config(directory)
    hotplug = config.memory_hotplug if config is not None else None
    pluggable = hotplug.total_size_mib * MIB if hotplug is not None else 0
    return frozenset({size_bytes, size_bytes + pluggable})


def copy_disks(source: Path, fork: Path, names: Iterable[str]) -> None:
    """Copy disks of an instance that is not running, or is paused, as they are now; raises OSError."""
    for name in names:
        place(source, name, fork, name, writable=True)


def copy_fixed(source: Path, fork: Path) -> tuple[str, ...]:
    """Put into a fork's directory what of its source's never changes: vm.json and what no guest can write.

    Returns the names of the files that its guest can write. Raises OSError.
    """
    if not bootable(source):
        return ()
    text, config = _own(source)
    files = tuple(dict.fromkeys(_kept(config)))
    for file in files:
        if not file.writable:
            place(source, file.source, fork, file.target, writable=False)
    (fork / VM_JSON).write_bytes(text)
    return tuple(file.source for file in files if file.writable)


def copied_bytes(source: Path) -> int:
    """Return how many bytes on disk `copy_machine` copies from this directory at most: those of writable disks."""
    return sum(allocated((source / name).stat()) for name in writable_disks(source))


def place(source: Path, name: str, directory: Path, target: str, *, writable: bool) -> None:
    """Link or copy a file of the directory `source` into an instance's; what the guest may write is a copy of its own.

    Raises OSError, and FileExistsError where there is a file of that name.
    """
    path = directory / target
    make_directories(directory, PurePosixPath(target).parent)
    fd = open_within(source, name)
    try:
        if not writable and link_opened(fd, path):
            return
        copy_opened(fd, path, advance)
    finally:
        os.close(fd)


def check_files(config: VmJson, directory: Path) -> None:
    """Raises ValueError where a file that the configuration names is not there or not in the image's directory.

    Also where two of the machine are one file, under whatever names, that its guest can write to: what it writes to one
    disk would be on another, or on none.
    """
    found: dict[tuple[int, int], PlacedFile] = {}
    for file in machine_files(config):
        status = _checked(directory, file.source)
        other = found.setdefault((status.st_dev, status.st_ino), file)
        if other is not file and (file.writable or other.writable):
            raise ValueError(
                f"{other.target} and {file.target} are one file, {file.source}, which the guest can write: "
                "give each a file of its own, or make both read-only"
            )
        found[status.st_dev, status.st_ino] = file
    if isinstance(config.cpu_config, str):
        _checked(directory, config.cpu_config)
        try:
            template = json.loads(read_within(directory, config.cpu_config, LARGEST_JSON))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"cpu-config: {config.cpu_config} is no JSON: {error}") from error
        if not isinstance(template, dict):
            raise ValueError(f"cpu-config: {config.cpu_config} has to hold a JSON object")


def _checked(directory: Path, name: str) -> os.stat_result:
    try:
        fd = open_within(directory, name)
    except OSError as error:
        if error.errno == errno.EXDEV:
            problem = f"{name} is a link to {error.filename2}: put the file itself into the image's directory"
        elif error.errno in (errno.EACCES, errno.EPERM):
            problem = f"{name} cannot be read: change its mode"
        elif error.errno in (errno.ENOENT, errno.ENOTDIR):
            problem = f"{name} is no file in the image's directory: put it there, or correct the path"
        else:
            problem = (
                f"{name} is no file in the image's directory ({error.strerror}): put it there, or correct the path"
            )
        raise ValueError(problem) from error
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def _rename(document: dict[str, Any]) -> None:
    """Give the files in a configuration the names that `machine_files` has for them."""
    boot_source = document["boot-source"]
    boot_source["kernel_image_path"] = KERNEL
    if boot_source.get("initrd_path") is not None:
        boot_source["initrd_path"] = INITRD
    for drive in document.get("drives", ()):
        if drive.get("path_on_host") is not None:
            drive["path_on_host"] = disk_file(drive["drive_id"])
    for device in document.get("pmem", ()):
        device["path_on_host"] = pmem_file(device["id"])
