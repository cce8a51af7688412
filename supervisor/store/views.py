"""What the wire shows of a record."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from supervisor.concurrency import progress
from supervisor.models import Instance, KnownFault, Operation, State, Template
from supervisor.models.base import MIB
from supervisor.rules.firecracker_versions import Machine, faults_of
from supervisor.rules.lineage import Forest
from supervisor.store.records import InstanceRecord, TemplateRecord

LOCKED_BY_SHOWN: Final = 16
"""How many holders of a lock an instance carries on the wire; `fork_count` counts them all."""
SHOWN_AS_RECORDED: Final = (
    "id", "name", "image", "state", "number", "created_at", "hypervisor", "vcpus", "started_at", "stopped_at",
    "exit_code", "exit_message", "exit_reason", "died", "source_id", "fork_kind", "let_go", "template_id",
    "memory_backend", "prefetch", "phases", "size_bytes", "track_dirty_pages", "firecracker_version", "clock_set",
    "readiness", "ready_at", "ready_ms",
)  # fmt: skip

OPERATION_FIELDS: Final = (
    "id", "verb", "instance_id", "name", "step", "asked_by", "since", "done", "total", "unit", "cancelled", "outcome",
)  # fmt: skip


def instance_view(
    record: InstanceRecord,
    forest: Forest,
    operation: progress.Operation | None,
    recording: bool,
    problem: str | None,
) -> Instance:
    """Return an instance with its place in the forest, what is being done to it, and what is wrong with it."""
    count = forest.fork_count(record.id)
    # Not validated: a record is, and a thousand are listed at once.
    return Instance.model_construct(
        **{name: getattr(record, name) for name in SHOWN_AS_RECORDED},
        size=f"{record.size_bytes // MIB}MB",
        state_error=problem,
        has_snapshot=record.state is State.STANDBY,
        fork_count=count,
        mem_locked=count > 0,
        locked_by=forest.holder_names(record.id, LOCKED_BY_SHOWN),
        layers=len(record.snapshot.layers) if record.snapshot else 0,
        recording=recording,
        vmm_pid=record.process.pid if record.process else None,
        jail_uid=record.jail_uid if record.process else None,
        known_faults=_known_faults(record.firecracker_version, record.machine),
        operation=operation_view(operation) if operation else None,
    )


def template_view(record: TemplateRecord, forest: Forest, recorder: str | None) -> Template:
    """Return a template with the fork that records its hot pages now, if one does."""
    return Template(
        id=record.id,
        instance_id=record.instance_id,
        size_bytes=record.size_bytes,
        page_size=record.page_size,
        fork_count=forest.fork_count(record.instance_id),
        layers=len(record.layers),
        page_server_pid=record.page_server.pid if record.page_server else None,
        page_server_uid=record.page_server_uid if record.page_server else None,
        recording_fork=recorder,
        recorded_pages=record.recorded_pages,
        recorded_runs=record.recorded_runs,
        sampled_pages=record.sampled_pages,
        precision=record.precision,
        wasted_bytes=record.wasted_bytes,
        page_server_restarts=record.page_server_restarts,
    )


def unreadable_view(directory: str, name: str, reason: str) -> Instance:
    """Return a directory as an instance of which nothing is known but why, and perhaps its name."""
    return Instance(
        id=directory,
        name=name,
        image="",
        state=State.UNKNOWN,
        state_error=reason,
        created_at=datetime.fromtimestamp(0, UTC),
        hypervisor="embedded",
        size="0MB",
        size_bytes=0,
        vcpus=0,
        has_snapshot=False,
        fork_count=0,
        mem_locked=False,
    )


def operation_view(operation: progress.Operation) -> Operation:
    """Return an operation as the wire shows it."""
    return Operation.model_construct(
        **{name: getattr(operation, name) for name in OPERATION_FIELDS},
        part_of=operation.part_of.id if operation.part_of else None,
    )


@lru_cache(maxsize=1024)
def _known_faults(version: str | None, machine: Machine) -> tuple[KnownFault, ...]:
    return tuple(KnownFault(name=fault.name, action=fault.action) for fault in faults_of(version, machine))
