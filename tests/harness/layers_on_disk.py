"""What an instance's directory has of its memory image, and guests that verify it."""

from pathlib import Path

from forktui.client.api import SupervisorClient
from supervisor.models import CheckpointRequest, ForkRequest, Instance
from supervisor.store.records import InstanceRecord
from tests.harness.supervisor_process import Home

SHARED = ForkRequest(share_memory=True, target_state="Running")


def directory(home: Home, instance: Instance) -> Path:
    return home.data / "instances" / instance.id


def record(home: Home, instance: Instance) -> InstanceRecord:
    return InstanceRecord.model_validate_json((directory(home, instance) / "instance.json").read_bytes())


def chain(home: Home, instance: Instance) -> list[Path]:
    """Return the layers of an instance's memory image, newest first, and see that its directory has no others."""
    snapshot = record(home, instance).snapshot
    layers = snapshot.layers if snapshot else ()
    files = {path.name for path in directory(home, instance).iterdir()}
    assert {name for name in files if name.startswith(("mem.", "state."))} == {
        *layers,
        *((snapshot.state,) if snapshot else ()),
    }
    return [directory(home, instance) / layer for layer in layers]


async def checkpoint(client: SupervisorClient, source: Instance, name: str) -> Instance:
    return await client.checkpoint(source.id, CheckpointRequest(name=name))
