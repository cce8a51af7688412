"""What `accept` believes of the files of a snapshot: those that Firecracker of any version writes, and no others."""

import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from supervisor.errors import InvalidStateError, LayerError
from supervisor.host.host import Host
from supervisor.models import AcceptRequest, CreateRequest, ForkRequest, State
from supervisor.models.base import MIB
from supervisor.snapshots.examination import Examination, check_state
from supervisor.store.records import InstanceRecord
from tests.harness.layers_on_disk import directory
from tests.harness.opened_host import opened_host
from tests.harness.supervisor_process import PATIENCE, Home

PLUGGABLE = 64 * MIB


@pytest_asyncio.fixture
async def host(embedded: Home) -> AsyncIterator[Host]:
    """Yield a host with a Standby instance."""
    async with opened_host(embedded) as opened:
        await opened.create(CreateRequest(name="source", image="pagewalker", cmd=("passes=0", "hot_mib=1")))
        await opened.queries.wait("source", State.RUNNING, PATIENCE)
        await opened.standby("source")
        yield opened


def kept(host: Host) -> InstanceRecord:
    """Return the record of the instance."""
    inventory = host._parts.inventory
    return inventory.instances[host.queries.instance("source").id]


def of_bitcode(record: InstanceRecord) -> InstanceRecord:
    """Return a record as if Firecracker 1.15 had written its snapshot."""
    assert record.snapshot is not None
    snapshot = record.snapshot.model_copy(update={"snapshot_version": "9.0.0"})
    return record.model_copy(update={"hypervisor": "firecracker", "snapshot": snapshot})


def replaced_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.unlink()
        make(path)

    return replace


async def test_a_state_file_whose_head_tells_nothing_is_taken_as_it_is(host: Host, embedded: Home) -> None:
    place = directory(embedded, host.queries.instance("source"))
    check_state(place, kept(host))
    state = place / "state.0"
    state.chmod(0o600)
    state.write_bytes(b"\x93bitcode" * 99)
    check_state(place, of_bitcode(kept(host)))
    with pytest.raises(LayerError, match=r"source: its state\.0 cannot be used: .*put it back"):
        check_state(place, kept(host))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: os.truncate(path, 0), "has 0 bytes"),
        (lambda path: os.truncate(path, 1 << 40), "has 1099511627776 bytes"),
        (Path.unlink, "No such file"),
        (replaced_by(os.mkfifo), "a FIFO"),
        (replaced_by(Path.mkdir), "a directory"),
        (replaced_by(lambda path: path.symlink_to("mem.0")), "a symbolic link"),
    ],
)
async def test_what_is_no_state_file_of_any_version_is_refused(
    host: Host, embedded: Home, spoil: Callable[[Path], object], reason: str
) -> None:
    place = directory(embedded, host.queries.instance("source"))
    spoil(place / "state.0")
    for record in (kept(host), of_bitcode(kept(host))):
        with pytest.raises(LayerError, match=rf"source: its state\.0 cannot be used: .*{reason}.*; put it back"):
            check_state(place, record)


async def test_a_memory_with_what_may_be_plugged_is_accepted_and_served(host: Host, embedded: Home) -> None:
    """As Firecracker writes it of a VM with memory-hotplug: its mem-file has all that the guest may be given."""
    place = directory(embedded, host.queries.instance("source"))
    config = json.loads((place / "vm.json").read_bytes())
    (place / "vm.json").write_text(json.dumps({**config, "memory-hotplug": {"total_size_mib": PLUGGABLE // MIB}}))
    layer = place / "mem.0"
    layer.chmod(0o600)
    os.truncate(layer, kept(host).size_bytes + PLUGGABLE)
    with pytest.raises(InvalidStateError, match="another one than what was noted"):
        await host.accept("source", AcceptRequest())
    await host.accept("source", AcceptRequest(changed=True))
    await host.accept("source", AcceptRequest())
    await host.fork("source", ForkRequest(name="rests", share_memory=True, target_state="Standby"))
    template = host._parts.inventory.template_of(kept(host).id)
    assert template is not None
    server = await host._parts.page_servers.serving(template.id)
    assert (await server.status()).forks == ()
    await host.accept("source", AcceptRequest())
    for size in (4096, kept(host).size_bytes + PLUGGABLE + 4096):
        os.truncate(layer, size)
        with pytest.raises(LayerError, match=rf"mem\.0 has {size} bytes, and its memory"):
            await host.accept("source", AcceptRequest(changed=True))


def test_layers_of_two_sizes_are_no_memory(tmp_path: Path) -> None:
    for name, size in (("mem.1", MIB), ("mem.0", 2 * MIB)):
        (tmp_path / name).write_bytes(bytes(size))
    examine = Examination("vm", {MIB, 2 * MIB}, lambda _: None)
    examine(tmp_path / "mem.1")
    with pytest.raises(LayerError, match=rf"mem\.0 has {2 * MIB} bytes, and its memory {MIB}; put it back"):
        examine(tmp_path / "mem.0")
