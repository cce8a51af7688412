"""The names in a vm.json beside each other and beside the supervisor's own: none may be in another's place. Pure.

A VMM works in its instance's directory, where its disks are, where it makes the socket of its vsock device, and where
the supervisor has the record, snapshots and logs.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath
from typing import Any, Final

from supervisor.images.machine_files import machine_files
from supervisor.images.vm_json import VmJson
from supervisor.models import quoted
from supervisor.store.layout import is_own
from supervisor.system.unix_sockets import SUN_PATH_BYTES

_IDS: Final = {"drives": "drive_id", "pmem": "id", "network-interfaces": "iface_id"}
"""By which Firecracker knows the entries of a section: of two with one id the second takes the place of the first."""
_ANOTHER: Final = "give it another name"
_SNAPSHOTTED: Final = "the machine that is snapshotted must have this file under another one"


def made_by_vmm(config: VmJson) -> tuple[PurePosixPath, ...]:
    """Return what the VMM makes in its instance's directory, beside the logs that the supervisor names."""
    return () if config.vsock is None else (PurePosixPath(config.vsock.uds_path),)


def check_names(config: VmJson, *, renamed: bool) -> None:
    """Raise ValueError where names of a configuration cannot be beside each other, or beside ours, in one directory.

    The files of an image that boots are `renamed` when they are placed, those of a snapshot are not.
    """
    _check_ids(config)
    made = made_by_vmm(config)
    for path in made:
        _check_socket(path)
    names = [(file.target if renamed else file.source, file.writable) for file in machine_files(config)]
    # Names that nobody can write to may be one file, of two devices.
    shared = {PurePosixPath(name) for name, writable in names if not writable}
    paths = [*made, *shared, *(PurePosixPath(name) for name, writable in names if writable)]
    if not renamed:
        for name, _ in names:
            _check_own(name, _SNAPSHOTTED)
    _check_apart(paths)


def _check_ids(config: VmJson) -> None:
    for section, key in _IDS.items():
        twice = [one for one, count in Counter(_ids(config, section, key)).items() if count > 1]
        if twice:
            raise ValueError(f"{section}: {key} {quoted(twice[0])} is given twice: {_ANOTHER}")


def _ids(config: VmJson, section: str, key: str) -> Iterator[str]:
    # What is not read here passes through as it is, and need not be a list of anything.
    entries: Any = (config.model_dump(by_alias=True)).get(section)
    for entry in entries if isinstance(entries, list | tuple) else ():
        if isinstance(entry, dict) and isinstance(entry.get(key), str):
            yield entry[key]


def _check_socket(path: PurePosixPath) -> None:
    length = len(str(path).encode())
    if length > SUN_PATH_BYTES:
        raise ValueError(f"vsock.uds_path may have {SUN_PATH_BYTES} bytes, and it has {length}")
    _check_own(str(path), _ANOTHER)


def _check_own(name: str, remedy: str) -> None:
    """Raise ValueError where a path, or its directory, would take the place of one of ours."""
    first = PurePosixPath(name).parts[0]
    if is_own(first):
        raise ValueError(f"{name}: {first} is a name that an instance's own files have: {remedy}")


def _check_apart(paths: Iterable[PurePosixPath]) -> None:
    taken: set[PurePosixPath] = set()
    for path in sorted(paths):
        inside = next((one for one in (path, *path.parents) if one in taken), None)
        if inside is not None:
            raise ValueError(f"{path} is in the way of {inside}, which the machine has too: {_ANOTHER}")
        taken.add(path)
