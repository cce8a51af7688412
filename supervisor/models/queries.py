"""What the supervisor answers to those who look."""

from datetime import datetime
from typing import Literal

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
    pages: InstanceStatistics | None = None


class PageMapFold(Wire):
    """`GET /instances/{id}/memory`: the page map folded to a number of cells, in address order.

    A cell counts its pages as (absent, faulted, fault-around, prefetched, zero).
    """

    id: str
    page_size: int
    pages: int
    cells: tuple[tuple[int, int, int, int, int], ...]


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
