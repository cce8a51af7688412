"""The one way in which a snapshot is taken: when it is told, and what is let run on when it comes to nothing."""

from collections.abc import AsyncIterator, Collection
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio

from supervisor.errors import StorageError
from supervisor.host.host import Host
from supervisor.models import CheckpointRequest, CreateRequest, State
from supervisor.operations import snapshots
from supervisor.snapshots.layers import Layers
from supervisor.snapshots.written_files import Written, keep
from supervisor.store.records import InstanceRecord, SnapshotFiles
from supervisor.vmm.api_client import ApiClient
from tests.harness.opened_host import opened_host
from tests.harness.supervisor_process import PATIENCE, Home


@pytest_asyncio.fixture
async def host(home: Home) -> AsyncIterator[Host]:
    """Yield a host with a VM that walks."""
    async with opened_host(home) as opened:
        await opened.create(CreateRequest(name="source", image="pagewalker", cmd=("passes=0", "hot_mib=4")))
        await opened.queries.wait("source", State.RUNNING, PATIENCE)
        yield opened


async def test_an_instance_stopped_when_its_snapshot_was_whole(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    whole: list[datetime] = []

    def kept(
        directory: Path, record: InstanceRecord, files: SnapshotFiles, sizes: Collection[int], written: Written
    ) -> None:
        keep(directory, record, files, sizes, written)
        whole.append(datetime.now(UTC))

    monkeypatch.setattr(snapshots, "keep", kept)
    standby = await host.standby("source")
    assert standby.stopped_at is not None
    assert standby.stopped_at >= whole[0]


@pytest.mark.parametrize("verb", ["standby", "checkpoint"])
async def test_one_that_the_disk_does_not_take_lets_the_vm_run_on_and_asks_for_that_once(
    host: Host, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    asked: list[str] = []
    resume = ApiClient.resume

    async def counted(self: ApiClient, seconds: float = 0) -> None:
        asked.append("resume")
        await resume(self, PATIENCE)

    async def refuse(*_: object) -> InstanceRecord:
        raise StorageError("the disk is full")

    monkeypatch.setattr(ApiClient, "resume", counted)
    monkeypatch.setattr(Layers, "commit", refuse)
    with pytest.raises(StorageError, match="the disk is full"):
        if verb == "standby":
            await host.standby("source")
        else:
            await host.checkpoint("source", CheckpointRequest(name="never"))
    assert asked == ["resume"]
    monkeypatch.undo()
    assert [one.state for one in host.queries.instances()] == [State.RUNNING]
    assert (await host.standby("source")).state is State.STANDBY
