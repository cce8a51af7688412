"""The wire: what crosses the supervisor's socket, in hypeman's shapes where hypeman has one.

Sizes are in bytes and durations in milliseconds unless a name says otherwise. Times are UTC.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
NAME_LENGTH = 63
FAN_OUT_LIMIT = 4096

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]
HypervisorName = Literal["firecracker", "embedded"]
HypervisorChoice = Literal["auto", "firecracker", "embedded"]
MemoryBackend = Literal["uffd", "file"]
PrefetchMode = Literal["before_resume", "concurrent", "off"]
RecordMode = Literal["auto", "on", "off"]
ForkKind = Literal["share_memory", "copy", "checkpoint"]
TargetState = Literal["Stopped", "Standby", "Running"]
ResourceName = Literal["memory", "disk", "descriptors", "page_server_descriptors", "processes"]
ImageKind = Literal["boot", "snapshot"]
Level = Literal["info", "warning", "alarm"]


class State(StrEnum):
    """hypeman's instance states; a template is a Standby instance with `mem_locked`."""

    CREATED = "Created"
    INITIALIZING = "Initializing"
    RUNNING = "Running"
    PAUSED = "Paused"
    SHUTDOWN = "Shutdown"
    STOPPED = "Stopped"
    STANDBY = "Standby"
    UNKNOWN = "Unknown"


class Wire(BaseModel):
    """The base of every model: immutable, and tolerant of fields that a newer peer adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Request(Wire):
    """The base of request bodies; hypeman's fields that have no meaning here are accepted and ignored."""


class Phase(Wire):
    """One step of how an instance came to run: flatten, prepare, spawn, load, prefetch, resume, or boot.

    A checkpoint has `paused`, for how long its source was, and `write`, until its layer was durable.
    """

    name: str
    milliseconds: float


class Guest(Wire):
    """What a pagewalker guest has printed since it last booted or was restored."""

    ready: bool = False
    restored: bool = False
    passes: int = 0
    done: bool = False
    corrupt: str | None = None
    """The guest-physical address of the first wrong byte, or the guest's error."""


class Instance(Wire):
    """A VM that the supervisor owns; the first block is hypeman's."""

    id: str
    name: str
    image: str
    state: State
    created_at: datetime
    hypervisor: HypervisorName
    size: str
    vcpus: int
    has_snapshot: bool
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    exit_code: int | None = None
    exit_message: str | None = None
    state_error: str | None = None

    fork_count: int
    mem_locked: bool
    locked_by: tuple[str, ...] = ()
    """The names of the share_memory forks that hold the lock."""
    size_bytes: int
    source_id: str | None = None
    fork_kind: ForkKind | None = None
    template_id: str | None = None
    """The template whose mem-file this fork reads."""
    memory_backend: MemoryBackend | None = None
    """None where the VM has its memory from no snapshot (a cold boot)."""
    prefetch: PrefetchMode | None = None
    recording: bool = False
    layers: int = 0
    """Of its memory image: how many of them a Standby instance is restored from, or the next is put upon."""
    track_dirty_pages: bool = True
    """Whether its snapshots are diff layers."""
    phases: tuple[Phase, ...] = ()
    vmm_pid: int | None = None
    busy: str | None = None
    """The verb in progress."""


class Template(Wire):
    """The internal record of a Standby instance that share_memory forks attach to."""

    id: str
    instance_id: str
    size_bytes: int
    page_size: int
    fork_count: int
    layers: int
    page_server_pid: int | None = None
    recording_fork: str | None = None
    recorded_pages: int = 0
    recorded_runs: int = 0
    page_server_restarts: int = 0
    """How often a page server was replaced because it died or hung."""


class InstanceStatistics(Wire):
    """Counters of one live instance; page counters are zero where no page server answers for it."""

    id: str
    faults: int = 0
    fault_around_pages: int = 0
    present_pages: int = 0
    total_pages: int = 0
    prefetched_pages: int = 0
    prefetch_bytes: int = 0
    prefetch_ms: float = 0.0
    residual_faults: int = 0
    """Demand faults since prefetch was complete."""
    zero_pages: int = 0
    removed_pages: int = 0
    copied_bytes: int = 0
    copy_errors: int = 0
    oldest_fault_ms: float = 0.0
    """The age of the oldest unanswered fault."""
    rss_bytes: int = 0
    private_bytes: int = 0
    shared_bytes: int = 0
    cpu_seconds: float = 0.0
    guest: Guest | None = None


class HostStatistics(Wire):
    """The host and the supervisor itself."""

    cpu_percent: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    supervisor_rss_bytes: int = 0
    page_server_rss_bytes: int = 0
    page_server_cpu_seconds: float = 0.0


class SupervisorInfo(Wire):
    """Who answers on this socket."""

    pid: int
    version: str
    started_at: datetime
    data_dir: str
    hypervisor: HypervisorName
    hypervisor_version: str
    writable: bool = True
    """Whether this peer may change anything."""


class HostSnapshot(Wire):
    """The whole host at one moment: what a client starts from."""

    supervisor: SupervisorInfo
    instances: tuple[Instance, ...]
    templates: tuple[Template, ...]
    statistics: tuple[InstanceStatistics, ...]
    host: HostStatistics


class CreateRequest(Request):
    """`POST /instances`."""

    name: Name
    image: str
    size: str | None = None
    """None: what the image's vm.json says."""
    vcpus: int | None = Field(default=None, ge=1, le=32)
    """None: what the image's vm.json says."""
    hypervisor: HypervisorChoice | None = None
    cmd: tuple[str, ...] = ()
    """Words appended to the kernel command line."""
    track_dirty_pages: bool = True
    """Whether the VMM logs which pages are written, which costs, so that standby and checkpoint write only those."""


class ForkOptions(Request):
    """What a fork and a fan-out have in common."""

    from_running: bool = False
    target_state: TargetState | None = None
    share_memory: bool = False
    template_id: str | None = None
    memory_backend: MemoryBackend = "uffd"
    prefetch: PrefetchMode = "before_resume"
    record: RecordMode = "auto"


class ForkRequest(ForkOptions):
    """`POST /instances/{id}/fork`; without a name the supervisor takes `<source>-<n>`."""

    name: Name | None = None


class CheckpointRequest(Request):
    """`POST /instances/{id}/checkpoint`; without a name the supervisor takes `<source>-<n>`."""

    name: Name | None = None


class FanOutRequest(ForkOptions):
    """`POST /instances/{id}/fan-out`: `count` forks, named `<name_prefix>-<n>`."""

    share_memory: bool = True
    target_state: TargetState | None = "Running"
    count: int = Field(ge=1, le=FAN_OUT_LIMIT)
    name_prefix: Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH - 5)] | None = None
    concurrency: int = Field(default=8, ge=1, le=64)
    dry_run: bool = False
    """Answer with a FanOutEstimate, and make nothing."""
    force: bool = False
    """Make them although the estimate says that they do not fit."""


class ErrorDetail(Wire):
    """One cause among several; `id` and `name` tell which instance, where it is one."""

    code: str = ""
    message: str = ""
    id: str | None = None
    name: str | None = None


class ErrorBody(Wire):
    """What every refusal and failure looks like."""

    code: str
    message: str
    details: tuple[ErrorDetail, ...] = ()


class FanOutChild(Wire):
    """One child of a fan-out: the instance, or why there is none."""

    name: str
    instance: Instance | None = None
    error: ErrorBody | None = None


class FanOutResult(Wire):
    """`POST /instances/{id}/fan-out` answers 200 with this also when children failed."""

    children: tuple[FanOutChild, ...]
    milliseconds: float


class ResourceEstimate(Wire):
    """One resource of the host and a fan-out's share of it: bytes of memory and disk, else a number."""

    name: ResourceName
    per_fork: int
    needed: int
    available: int | None = None
    """None where nothing limits it."""
    fits: int | None = None
    """How many forks it is enough for; None where it sets no bound."""
    basis: str
    """What the share is estimated from, and which limit says what is available."""


class FanOutEstimate(Wire):
    """`POST /instances/{id}/fan-out` with `dry_run`: how many forks fit, and what limits them."""

    count: int
    fits: int
    """At most FAN_OUT_LIMIT."""
    limiting: ResourceName | None = None
    """None where FAN_OUT_LIMIT forks fit."""
    resources: tuple[ResourceEstimate, ...]


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


class Deletion(Wire):
    """One instance that a deletion removes, and what is given back when it goes, in bytes."""

    id: str
    name: str
    state: State
    fork_kind: ForkKind | None = None
    running: bool
    """Whether a VMM of it is ended."""
    disk_bytes: int
    """Of the files whose last name goes with it; a file that an instance outside of the plan has too stays."""
    private_bytes: int


class DeletionPlan(Wire):
    """`DELETE /instances/{id}?dry_run=true`: what the same request without it does, in its order, forks first."""

    deletions: tuple[Deletion, ...]
    running: int
    disk_bytes: int
    private_bytes: int


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


class Reset(Wire):
    """The first event of a stream that cannot be resumed: forget everything, start from this."""

    type: Literal["reset"] = "reset"
    snapshot: HostSnapshot


class InstanceChanged(Wire):
    """An instance is new or different; the whole of it."""

    type: Literal["instance"] = "instance"
    instance: Instance


class InstanceDeleted(Wire):
    """An instance is gone."""

    type: Literal["instance_deleted"] = "instance_deleted"
    id: str


class TemplateChanged(Wire):
    """A template is new or different; the whole of it."""

    type: Literal["template"] = "template"
    template: Template


class TemplateDeleted(Wire):
    """A template is gone: its last fork went, or its source was restored."""

    type: Literal["template_deleted"] = "template_deleted"
    id: str


class Statistics(Wire):
    """Counters that changed since the last such event; the only kind that may be superseded."""

    type: Literal["statistics"] = "statistics"
    at: datetime
    instances: tuple[InstanceStatistics, ...]
    host: HostStatistics


class Activity(Wire):
    """One line for the event pane: what happened, or who asked for what."""

    type: Literal["activity"] = "activity"
    at: datetime
    level: Level
    message: str
    instance_id: str | None = None


Event = Annotated[
    Reset | InstanceChanged | InstanceDeleted | TemplateChanged | TemplateDeleted | Statistics | Activity,
    Field(discriminator="type"),
]
