"""What the supervisor remembers on disk of an instance and of a template."""

from datetime import UTC, datetime
from typing import Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, field_validator

from supervisor.models import (
    ExitReason,
    ForkKind,
    HypervisorName,
    LetGo,
    MemoryBackend,
    Phase,
    PrefetchMode,
    RecordedName,
    RecordMode,
    State,
)
from supervisor.models.readiness import on_load
from supervisor.rules.firecracker_versions import GIVING_BACK, Machine
from supervisor.rules.lifecycle import Intent
from supervisor.store.layer_marks import LayerMark
from supervisor.system.processes import boot_seconds
from supervisor.uffd.huge_pages import HUGE_PAGE_BYTES, SMALL_PAGE_BYTES

SCHEMA_VERSION: Final = 1


class Record(BaseModel):
    """The base of records: immutable, and strict about fields so that a foreign file is not taken for one of ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProcessIdentity(Record):
    """A process that outlives the supervisor: its pid, and its start time (clock ticks) against reuse of the pid."""

    pid: int
    start_time: int
    boot_id: str | None = None
    """The boot of the host that both are of; None in the records of earlier versions."""


class DiskMark(NamedTuple):
    """A disk of an instance: its path in the directory, and its bytes."""

    name: str
    size: int


class SnapshotFiles(Record):
    """The snapshot in an instance's directory: file names relative to it, layers newest first."""

    state: str
    layers: tuple[str, ...]
    snapshot_version: str
    layer_marks: tuple[LayerMark, ...] = ()
    """What each layer is known by; none are noted in records of former supervisors, until the next snapshot."""
    disks: tuple[DiskMark, ...] = ()
    """What disks its guest had; none are noted in records of former supervisors."""


class InstanceRecord(Record):
    """`instances/<id>/instance.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    name: RecordedName
    image: str
    state: State
    hypervisor: HypervisorName
    size_bytes: int
    page_size: int = SMALL_PAGE_BYTES
    """Bytes of the pages that guest memory is mapped in: 4096, or 2 MiB, which decides how it is served and loaded."""
    vcpus: int
    number: int = 0
    """The place of it among all instances in the order in which they were made, which is no clock's; 0 in the records
    of earlier versions, until they are read."""
    created_at: datetime
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    exit_code: int | None = None
    exit_message: str | None = None
    exit_reason: ExitReason | None = None
    died: bool = False
    """Whether its last VM ended although nobody had asked for that."""
    source_id: str | None = None
    fork_kind: ForkKind | None = None
    let_go: LetGo | None = None
    template_id: str | None = None
    attached: bool = False
    """Whether its memory comes, or is to come, from the template: through its page server, or from its mem-file."""
    memory_backend: MemoryBackend | None = None
    prefetch: PrefetchMode = "before_resume"
    record_hot_pages: RecordMode = "off"
    """What was asked for; whether it records is decided when it is loaded."""
    phases: tuple[Phase, ...] = ()
    snapshot: SnapshotFiles | None = None
    """Of a Standby instance what it is restored from; of one that runs what its next diff layer is relative to, where
    there is a base: a booted one's is memory of zeros."""
    next_layer: int = 0
    """The number of the next `state.<n>` and `mem.<n>`; a child goes on from its source's."""
    track_dirty_pages: bool = True
    """Whether its VMM logs which pages are written, so that its snapshots are diff layers."""
    snapshot_unfinished: bool = False
    """Whether a snapshot was begun and its layer is not in `snapshot`: its VM may be paused, and the dirty log, which
    a snapshot resets, no longer relative to `snapshot`."""
    intent: Intent | None = None
    """What is being done to it: on the disk before any effect outside, and gone with the record of the outcome."""
    process: ProcessIdentity | None = None
    jail_uid: int | None = None
    """Whose its VMM is, or was last, in a jail: on the disk before that is spawned; None where it is in none."""
    firecracker_version: str | None = None
    """Of the VMM that runs it, or ran it or its source last; None where there was none, or it is no Firecracker."""
    vmm_snapshot_version: str | None = None
    """Of the state-files that the VMM writes which runs it or ran it last, by the program that was started; None where
    it was not noted."""
    devices: tuple[str, ...] | None = None
    """Of those that matter here, which its VM has; None where nobody has asked it."""
    clock_set: bool = False
    """Whether the load that it came to run by has set its clock, or is to, where its VMM's version can."""
    console_offset: int = 0
    """Where in console.log (bytes) the present boot or restore begins."""
    ready_on_boot: str | None = None
    """What its guest is ready by when it has booted; None where nobody has said it."""
    ready_on_load: str | None = None
    """The same of a guest that comes from a snapshot."""
    readiness: str | None = None
    """What of these the present start waits for."""
    ready_at: datetime | None = None
    ready_ms: float | None = None
    """Milliseconds from the beginning of the present start until then."""
    metadata: dict[str, Any] | None = None
    """What its guest is told of what it is for, beside who it is."""
    source_name: str | None = None
    """What it was forked from was called then."""
    runs_since: float | None = None
    """Seconds of the boot clock at which its VMM had come to run it."""

    @field_validator("record_hot_pages", mode="before")
    @classmethod
    def _was_whether(cls, stored: object) -> object:
        """Read the records that say only whether, and not what was asked for."""
        if isinstance(stored, bool):
            return "auto" if stored else "off"
        return stored

    @property
    def served_over_uffd(self) -> bool:
        """Whether its page faults are, or are to be, answered by its template's page server."""
        return self.attached and self.memory_backend == "uffd" and self.template_id is not None

    @property
    def huge_pages(self) -> int:
        """How many huge pages of the host its guest may touch; 0 where its memory is of small ones."""
        return self.size_bytes // HUGE_PAGE_BYTES if self.page_size == HUGE_PAGE_BYTES else 0

    @property
    def gives_memory_back(self) -> bool | None:
        """Whether its guest can give pages back, which are in the page map alone; None where that is not known."""
        return None if self.devices is None else not GIVING_BACK.isdisjoint(self.devices)

    @property
    def machine(self) -> Machine:
        """What decides which faults of a version concern it."""
        return Machine(
            size_bytes=self.size_bytes,
            devices=frozenset(self.devices or ()),
            loaded=self.memory_backend is not None,
            has_base=self.snapshot is not None,
            tracked=self.track_dirty_pages,
        )


class StartedVmm(NamedTuple):
    """A VMM that has just come to run an instance, and what it says of itself."""

    process: ProcessIdentity
    firecracker_version: str | None
    snapshot_version: str
    devices: tuple[str, ...]
    clock_set: bool = False


def child_of(source: InstanceRecord, child_id: str, name: str, kind: ForkKind) -> InstanceRecord:
    """Return a new instance with its source's machine and snapshot."""
    return InstanceRecord(
        id=child_id,
        name=name,
        image=source.image,
        state=source.state,
        hypervisor=source.hypervisor,
        size_bytes=source.size_bytes,
        page_size=source.page_size,
        vcpus=source.vcpus,
        created_at=datetime.now(UTC),
        source_id=source.id,
        fork_kind=kind,
        snapshot=source.snapshot,
        next_layer=source.next_layer,
        track_dirty_pages=source.track_dirty_pages,
        firecracker_version=source.firecracker_version,
        devices=source.devices,
        metadata=source.metadata,
        source_name=source.name,
        ready_on_boot=source.ready_on_boot,
        ready_on_load=on_load(source.ready_on_load),
    )


NOT_READY: Final = {"readiness": None, "ready_at": None, "ready_ms": None}
"""What is known of the readiness of a guest that does not run."""


def running(
    record: InstanceRecord,
    state: State,
    vmm: StartedVmm,
    phases: tuple[Phase, ...],
    console_offset: int,
    readiness: str | None,
) -> InstanceRecord:
    """Return an instance as it is with a VMM that has just come to run, whose guest is ready by `readiness`."""
    return record.model_copy(
        update={
            "state": state,
            "process": vmm.process,
            "firecracker_version": vmm.firecracker_version,
            "vmm_snapshot_version": vmm.snapshot_version,
            "devices": vmm.devices,
            "clock_set": vmm.clock_set,
            "phases": phases,
            "started_at": datetime.now(UTC),
            "stopped_at": None,
            "exit_code": None,
            "exit_message": None,
            "exit_reason": None,
            "died": False,
            "console_offset": console_offset,
            "intent": None,
            **NOT_READY,
            "readiness": readiness,
            "runs_since": boot_seconds(),
        }
    )


def let_go(record: InstanceRecord, why: LetGo) -> InstanceRecord:
    """Return a fork that needs its source's memory no more; the same record where it held no lock of it."""
    if record.fork_kind != "share_memory":
        return record
    return record.model_copy(update={"fork_kind": "copy", "template_id": None, "attached": False, "let_go": why})


def stopped(
    record: InstanceRecord, code: int | None, message: str, reason: ExitReason | None, *, died: bool = False
) -> InstanceRecord:
    """Return an instance as it is without a VMM and without memory."""
    return record.model_copy(
        update={
            "state": State.STOPPED,
            "process": None,
            "snapshot": None,
            "snapshot_unfinished": False,
            "intent": None,
            "attached": False,
            "memory_backend": None,
            **NOT_READY,
            "stopped_at": datetime.now(UTC),
            "exit_code": code,
            "exit_message": message,
            "exit_reason": reason,
            "died": died,
        }
    )


class TemplateRecord(Record):
    """`templates/<id>/template.json`: a promoted Standby instance.

    Layers are paths relative to the data directory, newest first: hard links in the template's own directory, so that
    its page server finds them whatever becomes of the instance's chain.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    instance_id: str
    layers: tuple[str, ...]
    layer_marks: tuple[LayerMark, ...] = ()
    """What was noted of the layers in the instance's snapshot; the files are the same."""
    size_bytes: int
    page_size: int
    hypervisor: HypervisorName
    snapshot_version: str
    recorded_pages: int = 0
    recorded_runs: int = 0
    sampled_pages: int = 0
    sampled_wanted: int = 0
    page_server_restarts: int = 0
    page_server: ProcessIdentity | None = None
    page_server_uid: int | None = None
    """Whose its page servers are: on the disk before one is spawned; None where they are the supervisor's user's."""

    @property
    def image_bytes(self) -> int:
        """How long its layers are: with memory-hotplug they have what may be plugged as well as `size_bytes`."""
        return self.layer_marks[0].size if self.layer_marks else self.size_bytes

    @property
    def precision(self) -> float | None:
        """The share of the prefetched pages that a fork wants, estimated from what was held back; None without that."""
        return self.sampled_wanted / self.sampled_pages if self.sampled_pages else None

    @property
    def wasted_bytes(self) -> int | None:
        """Bytes prefetched into each fork that it does not want, estimated as `precision` is; None without that."""
        precision = self.precision
        return None if precision is None else round(self.recorded_pages * self.page_size * (1 - precision))
