"""What there is: instances, templates, their statistics, the host."""

from datetime import datetime
from typing import Any

from supervisor.models.base import (
    ExitReason,
    FaultAction,
    ForkKind,
    GuestSays,
    HypervisorName,
    JailMode,
    LetGo,
    MemoryBackend,
    OperationOutcome,
    OperationUnit,
    PrefetchMode,
    ResourceName,
    Stalled,
    State,
    Wire,
)
from supervisor.models.errors import ErrorBody


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


class LastWords(Wire):
    """The line on a guest's console by which Linux tells of its end: what the guest says, and so perhaps not true."""

    says: GuestSays
    line: str


class Operation(Wire):
    """An operation in progress, or how it ended."""

    id: str = ""
    verb: str
    instance_id: str = ""
    name: str = ""
    """The instance's."""
    part_of: str | None = None
    """The operation that this one is done for, as a fork is for a fan-out."""
    step: str = ""
    """Which of its steps is being taken."""
    asked_by: str = ""
    since: datetime | None = None
    done: int = 0
    total: int | None = None
    """How much there is to do, of which `done` is done; None where nothing is counted."""
    unit: OperationUnit | None = None
    cancelled: str | None = None
    """Why it is to end, once somebody has asked for that."""
    outcome: OperationOutcome | None = None
    """None while it is in progress."""


class KnownFault(Wire):
    """What a version of Firecracker does wrong with this instance; `GET /capabilities` says it in words."""

    name: str
    action: FaultAction


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
    exit_reason: ExitReason | None = None
    """Why its last VM ended; None while one runs, and where an earlier version of the supervisor saw it end."""
    state_error: str | None = None
    died: bool = False
    """Whether its last VM ended although nobody had asked for that: whoever stopped it, or its guest."""

    fork_count: int
    mem_locked: bool
    locked_by: tuple[str, ...] = ()
    """The names of the share_memory forks that hold the lock."""
    size_bytes: int
    number: int = 0
    """Its place in the order in which instances were made, which `created_at` is not where the clock was set."""
    source_id: str | None = None
    fork_kind: ForkKind | None = None
    let_go: LetGo | None = None
    """Why it holds its source's lock no more; None where it does, or never did."""
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
    metadata: dict[str, Any] | None = None
    """What its guest is told beside who it is: `GET /instances/{id}` alone has it."""
    readiness: str | None = None
    """What its present start waits for: `console:PATTERN`, `tcp:ADDRESS:PORT` or `vsock:PORT`."""
    ready_at: datetime | None = None
    """None before that."""
    ready_ms: float | None = None
    """Milliseconds from the beginning of its start until it was ready."""
    vmm_pid: int | None = None
    jail_uid: int | None = None
    """Whose its VMM is, in a jail of its own; None where it has none, or that is the supervisor's user's."""
    firecracker_version: str | None = None
    """Of the VMM that runs it, or ran it last; None before the first, and where that is no Firecracker."""
    clock_set: bool = False
    """Whether the load that it came to run by had its VMM set the guest's clock to the host's."""
    known_faults: tuple[KnownFault, ...] = ()
    """Which of that version's concern it."""
    operation: Operation | None = None
    """What is being done to it now."""

    @property
    def busy(self) -> str | None:
        """The verb of the operation in progress."""
        return self.operation.verb if self.operation else None

    @property
    def unready(self) -> bool:
        """Whether its guest is still to be ready by what its start waits for."""
        return self.readiness is not None and self.ready_at is None


class Template(Wire):
    """The internal record of a Standby instance that share_memory forks attach to."""

    id: str
    instance_id: str
    size_bytes: int
    page_size: int
    fork_count: int
    layers: int
    page_server_pid: int | None = None
    page_server_uid: int | None = None
    """Whose that is; None where it is the supervisor's user's, with all that this user may do."""
    recording_fork: str | None = None
    recorded_pages: int = 0
    recorded_runs: int = 0
    sampled_pages: int = 0
    """Recorded pages that were held back from some forks to see whether those would want them."""
    precision: float | None = None
    """The share of the recorded pages that a fork wants, estimated from those samples; None before the first."""
    wasted_bytes: int | None = None
    """Bytes prefetched into each fork that it does not want, estimated in the same way."""
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
    stalled: Stalled | None = None
    """Whether that is long, and why: None where it is not."""
    rss_bytes: int = 0
    private_bytes: int = 0
    shared_bytes: int = 0
    cpu_seconds: float = 0.0
    guest: Guest | None = None
    last_words: LastWords | None = None
    """What its console ends with while its VM runs, where that tells of an end: it may have halted."""


class HostStatistics(Wire):
    """The host and the supervisor itself."""

    cpu_percent: float = 0.0
    memory_total_bytes: int = 0
    memory_available_bytes: int = 0
    disk_total_bytes: int = 0
    """Of the file system that the data directory is on; 0 where it does not say."""
    disk_available_bytes: int = 0
    """What of it the supervisor may still write."""
    supervisor_rss_bytes: int = 0
    page_server_rss_bytes: int = 0
    page_server_cpu_seconds: float = 0.0
    console_holder_pid: int | None = None
    """Of the process that takes what VMMs, guests and page servers print; None while there is none."""


class FanOutFailure(Wire):
    """A fork that a fan-out did not make, and why."""

    name: str
    error: ErrorBody


class FanOutProgress(Wire):
    """A fan-out in progress, or how it ended; its forks' operations are parts of this one."""

    operation: Operation
    """On the source: `done` of `total` forks are made."""
    concurrency: int
    failed: int = 0
    failures: tuple[FanOutFailure, ...] = ()
    """The first few of those that failed."""
    milliseconds: float = 0.0
    """Since it began, or all that it took."""
    fits: int | None = None
    """How many forks would have fitted when it began."""
    limiting: ResourceName | None = None
    """What there was the least of then."""


class Jails(Wire):
    """What VMMs and page servers that are started now may do on the host."""

    mode: JailMode
    """What was asked for."""
    jailed: bool
    """Whether a Firecracker that is started now is in a jail; the embedded VMM never is."""
    problem: str | None = None
    """Why it is not, and what would allow it; None where it is, or where nobody wants it to be."""
    page_servers: tuple[str, ...] = ()
    """What confines a page server that is started now; nothing where that may do what the supervisor may."""


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
    firecracker_problem: str | None = None
    """Why no VM runs on Firecracker here, and what would allow it; None where it can."""
    jails: Jails | None = None
    """None of a supervisor that knows of none."""


class HostSnapshot(Wire):
    """The whole host at one moment: what a client starts from."""

    supervisor: SupervisorInfo
    instances: tuple[Instance, ...]
    templates: tuple[Template, ...]
    statistics: tuple[InstanceStatistics, ...]
    host: HostStatistics
    fan_outs: tuple[FanOutProgress, ...] = ()
    """Those in progress and the last ones that have ended, the oldest first."""
    at: datetime | None = None
    """The moment."""
