"""What of an instance's directory its VMM is to find in its jail. Every function blocks on the disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from supervisor.images.machine_files import KERNELS, machine_files, memory_sizes, own_config
from supervisor.images.machine_names import made_by_vmm
from supervisor.images.vm_json import VmJson
from supervisor.rules.jail import machine_problem
from supervisor.store.records import InstanceRecord


@dataclass(frozen=True)
class Needs:
    """Names in an instance's directory that its VMM opens, and the paths at which it makes sockets."""

    readable: tuple[str, ...]
    writable: tuple[str, ...]
    sockets: tuple[PurePosixPath, ...]
    memory_bytes: int
    """With what may be plugged in."""

    @property
    def folders(self) -> Iterator[PurePosixPath]:
        """Yield every directory that has one of them, from the top down."""
        paths = (*map(PurePosixPath, (*self.readable, *self.writable)), *self.sockets)
        found = {folder for path in paths for folder in path.parents if folder.parts}
        yield from sorted(found)


def needs(record: InstanceRecord, directory: Path, *, boots: bool) -> Needs:
    """Return what an instance's VMM needs to boot, or to load its snapshot: of its memory only what it opens itself."""
    config = own_config(directory)
    files = list(machine_files(config)) if config is not None else []
    if not boots:
        files = [file for file in files if file.target not in KERNELS]
    readable = [file.source for file in files if not file.writable]
    if not boots and record.snapshot is not None:
        readable.append(record.snapshot.state)
        if not record.served_over_uffd:
            readable += record.snapshot.layers
    writable = dict.fromkeys(file.source for file in files if file.writable)
    return Needs(
        tuple(name for name in dict.fromkeys(readable) if name not in writable),
        tuple(writable),
        made_by_vmm(config) if config is not None else (),
        max(memory_sizes(directory, record.size_bytes)),
    )


def problem_of(directory: Path) -> str | None:
    """Return why the machine of an instance's directory cannot be in a jail, or None."""
    config = own_config(directory)
    if config is None:
        return None
    paths = (*(PurePosixPath(file.source) for file in machine_files(config)), *made_by_vmm(config))
    return machine_problem({path.parts[0] for path in paths}, _backends(config))


def _backends(config: VmJson) -> set[str]:
    return {drive.socket for drive in config.drives if drive.socket is not None}
