"""Images that are snapshots: a `state` and a `mem` that Firecracker or the embedded VMM wrote, and perhaps a vm.json.

An instance of one begins in Standby. Without vm.json nothing says how to boot it: it can be restored and forked, and
not started again once it was stopped. A state-file has the paths of its disks baked in: they are to be relative, and
the files are placed where vm.json says.

Every function that takes a path blocks on the disk.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from supervisor.errors import BadRequestError, InvalidImageError
from supervisor.images import boot_image
from supervisor.images.machine_files import bootable, check_files, place, place_machine, read_vm_json
from supervisor.images.machine_names import check_names
from supervisor.images.memory_size import parse_size
from supervisor.images.readiness import disk_marks
from supervisor.images.vm_json import VmJson
from supervisor.models import CreateRequest, HypervisorName
from supervisor.models.base import MIB
from supervisor.remedies import Remedy
from supervisor.store.layer_marks import LayerMark
from supervisor.store.layout import HOT_PAGES, MEM, STATE, VM_JSON, layer, state_file
from supervisor.store.records import DiskMark, SnapshotFiles
from supervisor.system.regular_files import open_within
from supervisor.vmm.hypervisor import Hypervisor, loads
from supervisor.vmm.state_file import read_state_header


@dataclass(frozen=True)
class SnapshotImage:
    """A snapshot that was found usable."""

    name: str
    directory: Path
    hypervisor: HypervisorName
    """The VMM that wrote it, and the only one that loads it."""
    snapshot_version: str
    size_bytes: int
    vcpus: int
    config: VmJson | None
    mark: LayerMark
    """What its memory is known by."""
    has_hot_pages: bool
    disks: tuple[DiskMark, ...]


def is_snapshot(directory: Path) -> bool:
    """Return whether an image is a snapshot, or is meant to be one."""
    found = [os.path.lexists(directory / name) for name in (STATE, MEM)]
    return all(found) or (any(found) and not bootable(directory))


def load(images: Path, name: str) -> boot_image.BootImage | SnapshotImage:
    """Return an image of either kind by its name; raises as `load_snapshot` and `boot_image.load_image`."""
    if boot_image.is_name(name) and is_snapshot(images / name):
        return load_snapshot(images / name)
    return boot_image.load_image(images, name)


def load_snapshot(directory: Path) -> SnapshotImage:
    """Return the snapshot in an image's directory; raises InvalidImageError with what is wrong in one line."""
    name = directory.name
    boot_image.check_directory(directory)
    try:
        config = read_vm_json(directory) if bootable(directory) else None
        if config is not None:
            check_names(config, renamed=False)
            check_files(config, directory)
        return _inspect(directory, config)
    except (OSError, ValueError) as error:
        reason = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error
        raise InvalidImageError(f"image {name}: {reason}") from error


def check_snapshot(image: SnapshotImage, hypervisor: Hypervisor) -> None:
    """Raise InvalidImageError where this hypervisor cannot load the snapshot."""
    if image.hypervisor != hypervisor.name:
        raise InvalidImageError(
            f"image {image.name} is a snapshot of {image.hypervisor}: {hypervisor.name} cannot load it",
            remedy=Remedy.HYPERVISOR,
            parameter=image.hypervisor,
        )
    if not loads(hypervisor.name, hypervisor.snapshot_version, image.snapshot_version):
        raise InvalidImageError(
            f"image {image.name} has snapshot version {image.snapshot_version}, and {hypervisor.name} "
            f"{hypervisor.version} loads {hypervisor.snapshot_version}: use the VMM that wrote it, or make it anew"
        )


def check_request(image: SnapshotImage, request: CreateRequest) -> None:
    """Raise BadRequestError where something is asked of a snapshot that is decided in it."""
    if request.size is not None and parse_size(request.size) != image.size_bytes:
        raise BadRequestError(
            f"size {request.size} is refused: image {image.name} is a snapshot of {image.size_bytes // MIB}MB; leave "
            "it out"
        )
    if request.vcpus not in (None, image.vcpus) or request.cmd:
        raise BadRequestError(
            f"vcpus and cmd are refused: image {image.name} is a snapshot of a machine that runs; leave them out"
        )


def snapshot_files(image: SnapshotImage) -> SnapshotFiles:
    """Return what the snapshot's files are called in an instance's directory."""
    return SnapshotFiles(
        state=state_file(0),
        layers=(layer(0),),
        snapshot_version=image.snapshot_version,
        layer_marks=(image.mark,),
        disks=image.disks,
    )


def place_snapshot(image: SnapshotImage, files: SnapshotFiles, track_dirty_pages: bool, directory: Path) -> None:
    """Put into an instance's directory what its VMM restores; memory and state are links where that is possible."""
    place(image.directory, STATE, directory, files.state, writable=False)
    place(image.directory, MEM, directory, files.layers[0], writable=False)
    memory = directory / files.layers[0]
    if memory.stat().st_mtime_ns != image.mark.mtime_ns:
        # A copy, where a link was not possible.
        os.utime(memory, ns=(image.mark.mtime_ns, image.mark.mtime_ns))
    if image.has_hot_pages:
        place(image.directory, HOT_PAGES, directory, HOT_PAGES, writable=False)
    if image.config is not None:
        machine = {"vcpu_count": image.vcpus, "mem_size_mib": image.size_bytes // MIB}
        machine["track_dirty_pages"] = track_dirty_pages
        # The state-file has the paths of its disks baked in.
        place_machine(image.config, image.directory, directory, machine, renamed=False)


def _inspect(directory: Path, config: VmJson | None) -> SnapshotImage:
    has_hot_pages = os.path.lexists(directory / HOT_PAGES)
    if has_hot_pages:
        os.close(open_within(directory, HOT_PAGES))
    for name in (STATE, MEM):
        if (directory / name).is_symlink() or not (directory / name).is_file():
            raise ValueError(f"{name} is no file in its directory: a snapshot is a {STATE} and a {MEM}")
    header = read_state_header(directory / STATE)
    status = (directory / MEM).stat()
    size = status.st_size
    if size == 0 or size % MIB:
        raise ValueError(f"{MEM} has {size} bytes, which is no memory's size; copy it whole")
    told = config.machine_config if config is not None else None
    if header.size_bytes not in (None, size):
        raise ValueError(f"{MEM} has {size} bytes, and {STATE} says {header.size_bytes}; copy both whole")
    if told is not None and told.mem_size_mib * MIB != size:
        wanted = told.mem_size_mib * MIB
        raise ValueError(f"{MEM} has {size} bytes, and {VM_JSON} says {wanted}; correct {VM_JSON}, or copy it whole")
    return SnapshotImage(
        name=directory.name,
        directory=directory,
        hypervisor=header.hypervisor,
        snapshot_version=header.snapshot_version,
        size_bytes=size,
        vcpus=header.vcpus or (told.vcpu_count if told else 1),
        config=config,
        # Of the only layer of an image: nobody asks where its holes are.
        mark=LayerMark(size, status.st_mtime_ns),
        has_hot_pages=has_hot_pages,
        disks=disk_marks(config, directory),
    )
