"""What the supervisor remembers on disk of an instance and of a template."""

from datetime import datetime
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
    """Whether `snapshot` is the template's, so that memory comes through its page server or its mem-file."""
    memory_backend: MemoryBackend | None = None
    prefetch: PrefetchMode = "before_resume"
    record_hot_pages: bool = False
    phases: tuple[Phase, ...] = ()
    snapshot: SnapshotFiles | None = None
    next_layer: int = 0
    process: ProcessIdentity | None = None
    console_offset: int = 0
    """Where in console.log (bytes) the present boot or restore begins."""


class TemplateRecord(Record):
    """`templates/<id>/template.json`: a promoted Standby instance.

    Layers are paths relative to the data directory, newest first.
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
