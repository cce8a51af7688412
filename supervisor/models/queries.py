"""What the supervisor answers to those who look."""

from datetime import datetime
from typing import Any, Literal

from supervisor.models.base import ForkKind, HypervisorName, ImageKind, State, Wire
from supervisor.models.instances import InstanceStatistics


class ImageInfo(Wire):
    """One of `GET /images`; the first block is hypeman's."""

    name: str
    status: Literal["ready", "failed"]
    error: str | None = None
    """What is wrong with it and what to do, in one line; None where it can be used."""
    created_at: datetime
    digest: str = ""
    """hypeman's; a directory has none."""

    kind: ImageKind
    """Whether an instance of it boots, or begins in Standby."""
    hypervisor: HypervisorName | None = None
    """The only one that loads it, where it is a snapshot."""
    memory_bytes: int | None = None


class WaitResult(Wire):
    """`GET /instances/{id}/wait`."""

    state: State
    timed_out: bool
    state_error: str | None = None
    ready: bool = False
    """Whether what was waited for beside the state is so too."""


class ResourceStats(Wire):
    """`GET /instances/{id}/stats`: hypeman's fields, and the page counters."""

    instance_id: str
    instance_name: str
    allocated_memory_bytes: int
    allocated_vcpus: int
    cpu_seconds: float
    memory_rss_bytes: int
    memory_vms_bytes: int
    memory_utilization_ratio: float | None = None
    network_rx_bytes: int = 0
    network_tx_bytes: int = 0
    cgroup_memory_bytes: int | None = None
    """What the cgroup of a VMM in a jail is charged: beside its memory also the page cache of its files. None without
    a jail, or where nothing counts it."""
    cgroup_memory_max_bytes: int | None = None
    """Beyond which the kernel ends it; None where there is no such bound."""
    cgroup_pids: int | None = None
    """Its threads, and all that it may have started."""
    pages: InstanceStatistics | None = None


class PageMapFold(Wire):
    """`GET /instances/{id}/memory`: the page map folded to a number of cells, in address order.

    A cell counts its pages as (absent, faulted, fault-around, prefetched, zero).
    """

    id: str
    page_size: int
    pages: int
    cells: tuple[tuple[int, int, int, int, int], ...]
    latency_bounds_us: tuple[int, ...] = ()
    """Upper bounds, exclusive, of how long a page server took to answer a fault; the last count has none."""
    latency_counts: tuple[int, ...] = ()
    """How many faults took so long, one more than there are bounds."""
    fault_ms: float = 0.0
    """What all of those took together."""


class LayerInfo(Wire):
    """One layer of an instance's memory image."""

    file: str
    bytes: int
    disk_bytes: int
    """What it takes on disk: of a diff layer the pages that differ from those below it."""
    names: int
    """How many names the file has: forks, copies and templates have their own of the same one."""


class DiskInfo(Wire):
    """A disk of an instance; one that its guest cannot write may be the same file as its source's and its image's."""

    id: str
    file: str
    read_only: bool
    tells: bool = False
    """Whether it is what each instance has of its own, to be told who it is."""


class InterfaceInfo(Wire):
    """A network interface as the instance's vm.json has it: a snapshot is loaded with it as it is."""

    id: str
    mac: str | None = None
    """None where the guest has one that its VMM made up."""
    host_device: str | None = None


class MachineInfo(Wire):
    """`GET /instances/{id}/machine`: what an instance's directory has of it, which its forks have as it is."""

    id: str
    directory: str
    layers: tuple[LayerInfo, ...] = ()
    """Of its memory image, newest first."""
    configured: bool = False
    """Whether there is a vm.json to say what follows; an image may be a snapshot alone."""
    disks: tuple[DiskInfo, ...] = ()
    interfaces: tuple[InterfaceInfo, ...] = ()
    vsock_cid: int | None = None
    vsock_socket: str | None = None
    """On the host, in its directory."""
    metadata_ways: tuple[str, ...] = ()
    """By which its guest is told who it is: `mmds`, `drive`."""
    metadata: dict[str, Any] | None = None
    """What it is told beside that."""


class LineageNode(Wire):
    """One instance in the fork tree."""

    id: str
    name: str
    state: State
    fork_kind: ForkKind | None = None
    children: "tuple[LineageNode, ...]" = ()


class Lineage(Wire):
    """`GET /instances/{id}/lineage`: the sources up to the root, nearest first, and the tree below."""

    ancestors: tuple[str, ...]
    tree: LineageNode
