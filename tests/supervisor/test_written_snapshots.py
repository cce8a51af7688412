"""A VMM that says it has written a snapshot and has written something else: its VM runs on, and nothing is believed."""

import asyncio
import dataclasses
import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from supervisor.errors import StorageError, VmmError
from supervisor.host import host as host_module
from supervisor.host.host import Host
from supervisor.models import CheckpointRequest, CreateRequest, ForkRequest, State
from supervisor.snapshots import written_files
from supervisor.snapshots.layer_files import complete_opened, link, remove
from supervisor.store.layout import partial
from supervisor.vmm.hypervisor import embedded_hypervisor
from tests.harness.obedient_vmm import obedient_command
from tests.harness.opened_host import opened_host
from tests.harness.supervisor_process import PATIENCE, Home

WRONG = {
    "mem of 3 bytes": ("os.truncate(mem, 3)", "mem.0 has 3 bytes, and the memory"),
    "mem of 4 TiB": ("os.truncate(mem, 4 << 40)", "mem.0 has 4398046511104 bytes, and the memory"),
    "mem of a page less": ("os.truncate(mem, os.stat(mem).st_size - 4096)", "mem.0 has "),
    "mem that takes the disk": (
        "import ctypes; size = os.stat(mem).st_size; fd = os.open(mem, os.O_WRONLY);"
        "assert ctypes.CDLL(None).fallocate(fd, 1, ctypes.c_long(size), ctypes.c_long(2 * size)) == 0",
        "bytes of the disk, and has",
    ),
    "mem that is a directory": (
        "os.unlink(mem); os.makedirs(mem + '/a/b')",
        "mem.0.new: it is a directory, and no file",
    ),
    "mem that is a link": ("os.unlink(mem); os.symlink(other, mem)", "mem.0.new: it is a symbolic link, and no file"),
    "mem that is a FIFO": ("os.unlink(mem); os.mkfifo(mem)", "mem.0.new: it is a FIFO, and no file"),
    "mem that is a socket": (
        "import socket; os.unlink(mem); socket.socket(socket.AF_UNIX).bind(mem)",
        "mem.0.new: it is a socket, and no file",
    ),
    "mem that is another's": ("os.link(mem, 'second')", "mem.0 is a file with 2 names, which others have"),
    "mem of another user": ("os.chown(mem, 12345, -1)", "mem.0 is a file of uid 12345"),
    "no mem": ("os.unlink(mem)", "mem.0.new: No such file or directory"),
    "no state": ("os.unlink(state)", "state.0.new: No such file or directory"),
    "state of nothing": ("os.truncate(state, 0)", "state.0 has 0 bytes"),
    "state of anything": ("open(state, 'w').write('x' * 999)", "state.0 is neither Firecracker's of a version before"),
    "state of 1 TiB": ("os.truncate(state, 1 << 40)", "state.0 has 1099511627776 bytes, and no VMM loads more than"),
    "state that is a directory": ("os.unlink(state); os.mkdir(state)", "state.0.new: it is a directory, and no file"),
    "state that is a link": ("os.unlink(state); os.symlink(other, state)", "state.0.new: it is a symbolic link"),
    "state that is a FIFO": ("os.unlink(state); os.mkfifo(state)", "state.0.new: it is a FIFO, and no file"),
    "state of another VMM": (
        "import struct; open(state, 'wb').write(struct.pack('<QQ', 0x0710198486640000, 5) + b'6.0.0' + bytes(64))",
        "state.0 is of firecracker 6.0.0, and its VMM is embedded with",
    ),
    "state of another version": (
        "text = open(state).read(); open(state, 'w').write(text.replace('1.1.0', '9.9.9'))",
        "it has version '9.9.9'",
    ),
    "state of another machine": (
        "text = open(state).read(); open(state, 'w').write(text.replace('\"vcpu_count\": 1', '\"vcpu_count\": 2'))",
        "state.0 is of another machine",
    ),
}

Verb = Callable[[Host], Awaitable[object]]
VERBS: dict[str, Verb] = {
    "standby": lambda host: host.standby("source"),
    "checkpoint": lambda host: host.checkpoint("source", CheckpointRequest(name="child")),
    "fork": lambda host: host.fork("source", ForkRequest(name="child", from_running=True, target_state="Running")),
}


@pytest.fixture
def orders(run_dir: Path) -> Path:
    """Return where the VMM finds what it is to do after a snapshot."""
    return run_dir / "orders.py"


@pytest_asyncio.fixture
async def host(embedded: Home, orders: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    """Yield a host with a VM, whose VMM obeys."""
    obedient = dataclasses.replace(embedded_hypervisor(), command=obedient_command(orders))
    vmms = {"embedded": obedient, "firecracker": "it is not asked for"}
    monkeypatch.setattr(host_module, "available", lambda *_: vmms)
    monkeypatch.setattr("supervisor.vmm.hypervisor.available", lambda *_: vmms)
    async with opened_host(embedded) as opened:
        await opened.create(CreateRequest(name="source", image="pagewalker", cmd=("passes=0", "hot_mib=1")))
        await opened.queries.wait("source", State.RUNNING, PATIENCE)
        yield opened


def tell(orders: Path, order: str) -> None:
    orders.write_text(order)


def directory_of(host: Host, embedded: Home) -> Path:
    return embedded.data / "instances" / host.queries.instance("source").id


STORIES = [("standby", what) for what in WRONG]
STORIES += [(verb, what) for verb in ("checkpoint", "fork") for what in ("mem of 3 bytes", "state that is a FIFO")]


@pytest.mark.parametrize(("verb", "what"), STORIES)
async def test_what_is_no_snapshot_is_told_and_the_vm_runs_on(
    host: Host, embedded: Home, orders: Path, verb: str, what: str
) -> None:
    order, reason = WRONG[what]
    if "chown" in order and os.geteuid() != 0:
        pytest.skip("another user's file, which root can make")
    other = embedded.root / "other"
    other.write_bytes(b"precious")
    other.chmod(0o644)
    tell(orders, f"other = {str(other)!r}\n{order}")
    with pytest.raises(VmmError) as refused:
        async with asyncio.timeout(PATIENCE):
            await VERBS[verb](host)
    assert refused.value.message.startswith("source: what its VMM wrote is no snapshot of it: ")
    assert reason in refused.value.message
    source = host.queries.instance("source")
    assert source.state is State.RUNNING
    assert [one.name for one in host.queries.instances()] == ["source"]
    assert (other.read_bytes(), stat.S_IMODE(other.stat().st_mode)) == (b"precious", 0o644)
    found = {path.name for path in directory_of(host, embedded).iterdir()}
    assert not {name for name in found if name.startswith(("mem", "state"))}
    tell(orders, "")
    await host.standby("source")
    await host.restore("source")


async def test_a_file_that_is_replaced_after_it_was_looked_at_is_not_kept(
    host: Host, embedded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = directory_of(host, embedded)

    def replaced(directory: Path, files: dict[str, int]) -> None:
        layer = partial(directory / "mem.0")
        layer.rename(directory / "second")
        layer.symlink_to("/etc/hostname")
        complete_opened(directory, files)

    monkeypatch.setattr(written_files, "complete_opened", replaced)
    with pytest.raises(StorageError, match=r"mem\.0 was replaced by another file meanwhile"):
        await host.standby("source")
    assert host.queries.instance("source").state is State.RUNNING
    assert "mem.0" not in {path.name for path in directory.iterdir()}


def test_what_is_linked_is_a_file(tmp_path: Path) -> None:
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    (tmp_path / "source" / "mem.0").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="it is a symbolic link, and no file"):
        link(("mem.0",), tmp_path / "source", tmp_path / "target")


def test_whatever_is_at_a_name_is_removed_and_nothing_behind_it(tmp_path: Path) -> None:
    (tmp_path / "kept" / "inside").mkdir(parents=True)
    (tmp_path / "mem.0").symlink_to(tmp_path / "kept")
    (tmp_path / "mem.0.new" / "deep").mkdir(parents=True)
    (tmp_path / "mem.0.new" / "link").symlink_to(tmp_path / "kept")
    os.mkfifo(tmp_path / "state.0")
    remove(tmp_path, ("mem.0", "state.0"))
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept" / "inside").is_dir()
