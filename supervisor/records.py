"""What the supervisor remembers on disk of an instance and of a template."""

from datetime import UTC, datetime
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from supervisor.models import ForkKind, HypervisorName, MemoryBackend, Name, Phase, PrefetchMode, State

SCHEMA_VERSION: Final = 1


class Record(BaseModel):
    """The base of records: immutable, and strict about fields so that a foreign file is not taken for one of ours."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ProcessIdentity(Record):
    """A process that outlives the supervisor: its pid, and its start time (clock ticks) against reuse of the pid."""

    pid: int
    start_time: int


class SnapshotFiles(Record):
    """The snapshot in an instance's directory: file names relative to it, layers newest first."""

    state: str
    layers: tuple[str, ...]
    snapshot_version: str


class InstanceRecord(Record):
    """`instances/<id>/instance.json`."""

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    name: Name
    image: str
    state: State
    hypervisor: HypervisorName
    size_bytes: int
    vcpus: int
    created_at: datetime
    started_at: datetime | None = None
    stopped_at: datetime | None = None
    exit_code: int | None = None
    exit_message: str | None = None
    source_id: str | None = None
    fork_kind: ForkKind | None = None
    template_id: str | None = None
    attached: bool = False
    """Whether its memory comes, or is to come, from the template: through its page server, or from its mem-file."""
    memory_backend: MemoryBackend | None = None
    prefetch: PrefetchMode = "before_resume"
    record_hot_pages: bool = False
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
    process: ProcessIdentity | None = None
    console_offset: int = 0
    """Where in console.log (bytes) the present boot or restore begins."""


def child_of(source: InstanceRecord, child_id: str, name: str, kind: ForkKind) -> InstanceRecord:
    """Return a new instance with its source's machine and snapshot."""
    return InstanceRecord(
        id=child_id,
        name=name,
        image=source.image,
        state=source.state,
        hypervisor=source.hypervisor,
        size_bytes=source.size_bytes,
        vcpus=source.vcpus,
        created_at=datetime.now(UTC),
        source_id=source.id,
        fork_kind=kind,
        snapshot=source.snapshot,
        next_layer=source.next_layer,
        track_dirty_pages=source.track_dirty_pages,
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
    size_bytes: int
    page_size: int
    hypervisor: HypervisorName
    snapshot_version: str
    recorded_pages: int = 0
    recorded_runs: int = 0
    page_server_restarts: int = 0
    page_server: ProcessIdentity | None = None
