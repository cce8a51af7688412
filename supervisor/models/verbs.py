"""What verbs take, and what they answer."""

from typing import ClassVar

from pydantic import Field

from supervisor.models.base import (
    FAN_OUT_LIMIT,
    MAX_VCPUS,
    ForkKind,
    HypervisorChoice,
    MemoryBackend,
    Name,
    NamePrefix,
    PrefetchMode,
    RecordMode,
    Request,
    ResourceName,
    State,
    TargetState,
    Wire,
)
from supervisor.models.errors import ErrorBody
from supervisor.models.instances import Instance
from supervisor.models.metadata import Metadata
from supervisor.models.readiness import ReadinessText


class CreateRequest(Request):
    """`POST /instances`."""

    passed_over: ClassVar[frozenset[str]] = frozenset(
        (
            "auto_standby",
            "credentials",
            "devices",
            "disk_io_bps",
            "entrypoint",
            "env",
            "expires_at",
            "gpu",
            "health_check",
            "hotplug_size",
            "network",
            "overlay_size",
            "platform",
            "restart_policy",
            "skip_guest_agent",
            "skip_kernel_headers",
            "snapshot_policy",
            "tags",
            "ttl",
            "volumes",
        )
    )

    name: Name
    image: str
    size: str | None = None
    """None: what the image's vm.json says."""
    vcpus: int | None = Field(default=None, ge=1, le=MAX_VCPUS)
    """None: what the image's vm.json says."""
    hypervisor: HypervisorChoice | None = None
    cmd: tuple[str, ...] = ()
    """Words appended to the kernel command line."""
    track_dirty_pages: bool = True
    """Whether the VMM logs which pages are written, which costs, so that standby and checkpoint write only those."""
    readiness: ReadinessText | None = None
    """What its guest is ready by when it has booted; None: what the image's vm.json says."""
    metadata: Metadata | None = None
    """What its guest is told, beside who it is."""


class StartRequest(Request):
    """`POST /instances/{id}/start`."""

    passed_over: ClassVar[frozenset[str]] = frozenset(("cmd", "entrypoint"))


class StandbyRequest(Request):
    """`POST /instances/{id}/standby`."""

    passed_over: ClassVar[frozenset[str]] = frozenset(("compression", "compression_delay"))


class ForkOptions(Request):
    """What a fork and a fan-out have in common."""

    from_running: bool = False
    target_state: TargetState | None = None
    share_memory: bool = False
    template_id: str | None = None
    memory_backend: MemoryBackend = "uffd"
    prefetch: PrefetchMode = "before_resume"
    record: RecordMode = "auto"
    readiness: ReadinessText | None = None
    """What its guest is ready by once it runs."""
    metadata: Metadata | None = None
    """What its guest is told, beside who it is; None: what its source's was."""


class ForkRequest(ForkOptions):
    """`POST /instances/{id}/fork`; without a name the supervisor takes `<source>-<n>`."""

    name: Name | None = None


class CheckpointRequest(Request):
    """`POST /instances/{id}/checkpoint`; without a name the supervisor takes `<source>-<n>`."""

    name: Name | None = None
    metadata: Metadata | None = None
    """What the guest of it is told once it runs; None: what its source's was."""


class AcceptRequest(Request):
    """`POST /instances/{id}/accept`: have the layers of a memory image that were put back taken for what they are."""

    changed: bool = False
    """Take them also where they are certainly another memory than what was noted."""


class FanOutRequest(ForkOptions):
    """`POST /instances/{id}/fan-out`: `count` forks, named `<name_prefix>-<n>`."""

    share_memory: bool = True
    target_state: TargetState | None = "Running"
    count: int = Field(ge=1, le=FAN_OUT_LIMIT)
    name_prefix: NamePrefix | None = None
    concurrency: int = Field(default=8, ge=1, le=64)
    dry_run: bool = False
    """Answer with a FanOutEstimate, and make nothing."""
    force: bool = False
    """Make them although the estimate says that they do not fit."""


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
    copied_bytes: int = 0
    """Of disks that are copied for each fork before it runs; 0 where it has none that it may write to, or shares their
    blocks."""


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
