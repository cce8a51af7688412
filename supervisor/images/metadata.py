"""How a guest comes to know which instance it is, and what it is for: by MMDS, or from a disk that has it.

Every function that takes a path blocks on the disk.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from supervisor.errors import BadRequestError, MachineFileError, StorageError
from supervisor.images.machine_files import own_config
from supervisor.images.vm_json import Drive, VmJson
from supervisor.models import ID_LENGTH, NAME_LENGTH
from supervisor.models.metadata import OWN_KEY, encoded
from supervisor.store.layout import METADATA, partial_record
from supervisor.store.records import InstanceRecord
from supervisor.system.regular_files import open_regular, open_within

METADATA_DRIVE: Final = "metadata"
"""The drive_id of the disk that the supervisor writes."""
PADDING: Final = b"\n"
"""Behind the JSON up to the disk's end: white space to JSON, and `$(...)` of a shell drops it."""

_MMDS: Final = "mmds-config"
_LARGEST_NUMBER: Final = (1 << 63) - 1


def document(record: InstanceRecord) -> dict[str, Any]:
    """Return what an instance's guest is told: who it is, and its metadata."""
    who = {"id": record.id, "name": record.name, "number": record.number, "source": record.source_name}
    return {OWN_KEY: who, **(record.metadata or {})}


def has_mmds(config: VmJson | None) -> bool:
    """Return whether a machine has Firecracker's metadata service; its configuration is in each of its snapshots."""
    section = (config.model_extra or {}).get(_MMDS) if config is not None else None
    return isinstance(section, Mapping) and bool(section.get("network_interfaces"))


def metadata_drive(config: VmJson | None) -> Drive | None:
    """Return the disk that has the metadata; one that its guest could write is a disk like any other."""
    for drive in config.drives if config is not None else ():
        if drive.drive_id == METADATA_DRIVE and drive.is_read_only and drive.path_on_host is not None:
            return drive
    return None


def ways(config: VmJson | None) -> tuple[str, ...]:
    """Return by what a guest is told: `mmds`, `drive`."""
    found = {"mmds": has_mmds(config), "drive": metadata_drive(config) is not None}
    return tuple(name for name, there in found.items() if there)


def check_metadata(name: str, metadata: Mapping[str, Any] | None, config: VmJson | None) -> None:
    """Raise BadRequestError where there is no way by which the instance `name` could be told this. Pure."""
    if metadata is not None and not ways(config):
        raise BadRequestError(
            f"{name}: metadata needs a way into the guest: give vm.json of its image a drive with the drive_id "
            f"{METADATA_DRIVE} that is read-only, or {_MMDS} for a network interface; or leave metadata out"
        )


def check_fits(name: str, metadata: Mapping[str, Any] | None, config: VmJson | None, directory: Path) -> None:
    """Raise BadRequestError where an instance's disk is too small for this, however it is called; OSError."""
    drive = metadata_drive(config)
    if metadata is None or drive is None or drive.path_on_host is None:
        return
    longest = {"id": "i" * ID_LENGTH, "name": "n" * NAME_LENGTH, "number": _LARGEST_NUMBER, "source": "s" * NAME_LENGTH}
    needed, size = len(_lines({OWN_KEY: longest, **metadata})), _size(directory, drive.path_on_host)
    if needed > size:
        raise BadRequestError(
            f"{name}: metadata is refused: it takes {needed} bytes, and the disk {METADATA_DRIVE} of its image has "
            f"{size}; make that file larger, or the metadata smaller"
        )


def write_metadata(record: InstanceRecord, directory: Path) -> None:
    """Put what the guest is to be told on its disk, if it has one, before its VMM opens that.

    A file in the place of the one that is there, which others have too, of the same size, which its snapshots know.
    Raises MachineFileError and StorageError.
    """
    drive = metadata_drive(own_config(directory))
    if drive is None or drive.path_on_host is None:
        return
    path, written = directory / drive.path_on_host, partial_record(directory / METADATA)
    try:
        size = _size(directory, drive.path_on_host)
        lines = _lines(document(record))
        if len(lines) > size:
            raise MachineFileError(
                f"{record.name}: its disk {path} has {size} bytes, and {len(lines)} are to be on it; make it larger"
            )
        written.unlink(missing_ok=True)
        with os.fdopen(open_regular(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(lines.ljust(size, PADDING))
        written.replace(path)
    except OSError as error:
        raise StorageError(f"{record.name}: its metadata cannot be written to {path}: {error.strerror}") from error


def _lines(told: Mapping[str, Any]) -> bytes:
    """Return the document in two lines, of which the first has what the supervisor says: a shell finds it there."""
    who, rest = encoded({OWN_KEY: told[OWN_KEY]}), encoded({key: told[key] for key in told if key != OWN_KEY})
    return who + b"\n" if rest == b"{}" else who[:-1] + b",\n" + rest[1:] + b"\n"


def _size(directory: Path, name: str) -> int:
    fd = open_within(directory, name)
    try:
        return os.fstat(fd).st_size
    finally:
        os.close(fd)
