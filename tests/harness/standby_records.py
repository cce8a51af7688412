"""Records of instances for tests that start none."""

from datetime import UTC, datetime

from supervisor.models import State
from supervisor.store.records import InstanceRecord


def standby_record(instance_id: str, name: str, source_id: str | None = None) -> InstanceRecord:
    """Return a Standby instance that differs from others in its id, name and source only."""
    return InstanceRecord(
        id=instance_id,
        name=name,
        image="pagewalker",
        state=State.STANDBY,
        hypervisor="embedded",
        size_bytes=1 << 20,
        vcpus=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        source_id=source_id,
        fork_kind="share_memory" if source_id else None,
    )
