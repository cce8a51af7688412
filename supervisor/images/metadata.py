"""How a guest comes to know which instance it is, and what it is for: by MMDS, or from a disk that has it.

Every function that takes a path blocks on the disk.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from supervisor.errors import BadRequestError, MachineFileError, StorageError
from supervisor.images.machine_files import own_config
from supervisor.images.vm_json import OWN_SECTION, Drive, VmJson
from supervisor.models import ID_LENGTH, NAME_LENGTH
from supervisor.models.metadata import OWN_KEY, encoded
from supervisor.store.layout import METADATA, partial_record
from supervisor.store.records import InstanceRecord
from supervisor.system.regular_files import open_regular, open_within

LARGEST_DISK: Final = 1 << 20
"""Bytes of a disk that has it, all of which are written at each start."""
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
    """Return the disk that has the metadata: what an image does not name as that is a disk like any other."""
    return config.metadata_drive if config is not None else None


def ways(config: VmJson | None) -> tuple[str, ...]:
    """Return by what a guest is told: `mmds`, `drive`."""
    found = {"mmds": has_mmds(config), "drive": metadata_drive(config) is not None}
    return tuple(name for name, there in found.items() if there)


def check_metadata(name: str, metadata: Mapping[str, Any] | None, config: VmJson | None) -> None:
    """Raise BadRequestError where there is no way by which the instance `name` could be told this. Pure."""
    if metadata is not None and not ways(config):
        raise BadRequestError(
            f"{name}: metadata needs a way into the guest: name a read-only drive in vm.json of its image, as "
            f'{{"{OWN_SECTION}": {{"metadata_drive": ...}}}}, or give it {_MMDS}; or leave metadata out'
        )


def check_fits(name: str, metadata: Mapping[str, Any] | None, config: VmJson | None, directory: Path) -> None:
    """Raise BadRequestError where an instance's disk, however it is called, is too small or too large; OSError."""
    drive = metadata_drive(config)
    if drive is None or drive.path_on_host is None:
        return
    size = _size(directory, drive.path_on_host)
    if size > LARGEST_DISK:
        raise BadRequestError(
            f"{name}: its disk {drive.drive_id} for metadata has {size} bytes, and at most {LARGEST_DISK} are written "
            "at each start; make that file of its image smaller"
        )
    if metadata is None:
        return
    longest = {"id": "i" * ID_LENGTH, "name": "n" * NAME_LENGTH, "number": _LARGEST_NUMBER, "source": "s" * NAME_LENGTH}
    needed = len(_lines({OWN_KEY: longest, **metadata}))
    if needed > size:
        raise BadRequestError(
            f"{name}: metadata is refused: it takes {needed} bytes, and the disk {drive.drive_id} of its image has "
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
        if not len(lines) <= size <= LARGEST_DISK:
            raise MachineFileError(
                f"{record.name}: its disk {path} has {size} bytes, and {len(lines)} are to be on it; it takes at least "
                f"those, and at most {LARGEST_DISK}"
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
