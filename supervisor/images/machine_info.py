"""What an instance's directory has of it, for those who look: the layers of its memory image, and its devices.

Every function that takes a path blocks on the disk.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from supervisor.errors import MachineFileError
from supervisor.images.machine_files import own_config
from supervisor.images.metadata import metadata_drive, ways
from supervisor.images.vm_json import VmJson
from supervisor.models import DiskInfo, InterfaceInfo, LayerInfo, MachineInfo
from supervisor.store.records import InstanceRecord
from supervisor.system.sparse_files import allocated

_INTERFACES: Final = "network-interfaces"


def machine_info(directory: Path, record: InstanceRecord) -> MachineInfo:
    """Return what there is; a layer that is gone is left out, and so is what a vm.json says that cannot be read."""
    layers = tuple(_layers(directory, record))
    try:
        config = own_config(directory)
    except MachineFileError:
        config = None
    if config is None:
        return MachineInfo(id=record.id, directory=str(directory), layers=layers, metadata=record.metadata)
    return MachineInfo(
        id=record.id,
        directory=str(directory),
        layers=layers,
        configured=True,
        disks=_disks(config),
        interfaces=tuple(map(_interface, _entries(config))),
        vsock_cid=_number((config.vsock.model_extra or {}).get("guest_cid")) if config.vsock else None,
        vsock_socket=config.vsock.uds_path if config.vsock else None,
        metadata_ways=ways(config),
        metadata=record.metadata,
    )


def _layers(directory: Path, record: InstanceRecord) -> Iterator[LayerInfo]:
    for name in record.snapshot.layers if record.snapshot else ():
        try:
            status = (directory / name).stat()
        except OSError:
            # Nobody holds the instance here: its layers may be merged meanwhile.
            continue
        yield LayerInfo(file=name, bytes=status.st_size, disk_bytes=allocated(status), names=status.st_nlink)


def _disks(config: VmJson) -> tuple[DiskInfo, ...]:
    told = metadata_drive(config)
    drives = (
        DiskInfo(
            id=one.drive_id,
            file=one.path_on_host or one.socket or "",
            read_only=bool(one.is_read_only),
            tells=one is told,
        )
        for one in config.drives
    )
    pmem = (DiskInfo(id=one.id, file=one.path_on_host, read_only=one.read_only) for one in config.pmem)
    return (*drives, *pmem)


def _entries(config: VmJson) -> Iterator[Mapping[str, Any]]:
    """Yield the interfaces: a section that only Firecracker reads, so that nothing has checked its shape."""
    found = (config.model_extra or {}).get(_INTERFACES)
    yield from (entry for entry in (found if isinstance(found, list) else ()) if isinstance(entry, Mapping))


def _interface(entry: Mapping[str, Any]) -> InterfaceInfo:
    return InterfaceInfo(
        id=_word(entry.get("iface_id")) or "",
        mac=_word(entry.get("guest_mac")),
        host_device=_word(entry.get("host_dev_name")),
    )


def _word(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
