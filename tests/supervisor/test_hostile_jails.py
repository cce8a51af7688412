"""What a VMM does in its jail that its guest has taken over: nothing of it is followed, believed or left."""

import asyncio
import os
import socket
import stat
from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from supervisor.errors import InvalidStateError, StorageError, VmmError
from supervisor.host.host import Host
from supervisor.models import CheckpointRequest, CreateRequest, Instance, State
from supervisor.system.own_cgroups import OwnCgroups
from supervisor.vmm.api_client import ApiClient
from tests.harness.hostile import Hostile
from tests.harness.jails import cgroups, jail_root, jail_uid, left_of_jails
from tests.harness.opened_host import opened_host
from tests.harness.supervisor_process import PATIENCE, Home
from tests.harness.waiting import until as until_true

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="jails are made by root")

GID = 1879048192
NEW = CreateRequest(name="source", image="pagewalker", cmd=("passes=0", "hot_mib=1"))
WRONG = {
    "mem that is a link": ("os.unlink(mem); os.symlink(other, mem)", "mem.0.new: it is a symbolic link, and no file"),
    "mem that is a FIFO": ("os.unlink(mem); os.mkfifo(mem)", "mem.0.new: it is a FIFO, and no file"),
    "mem that is a directory": ("os.unlink(mem); os.makedirs(mem + '/a/b')", "mem.0.new: it is a directory, and no"),
    "mem that has a second name": ("os.link(mem, 'second')", "mem.0 is a file with 2 names, which others have"),
    "mem that is a file of root's": ("os.unlink(mem); os.rename('kernel', mem)", "names, which others have"),
    "mem that is written on": ("held = open(mem, 'r+b')", "mem.0 is open for writing yet"),
    "mem that is mapped": (
        "file = open(mem, 'r+b'); held = mmap.mmap(file.fileno(), 0); file.close()",
        "mem.0 is open for writing yet",
    ),
    "mem of a hole less": ("os.truncate(mem, os.stat(mem).st_size - 4096)", "mem.0 has "),
    "state that is a link": ("os.unlink(state); os.symlink(other, state)", "state.0.new: it is a symbolic link"),
    "state of anything": ("open(state, 'w').write('x' * 99)", "state.0 is neither Firecracker's of a version before"),
    "state that is written on": ("held = os.open(state, os.O_WRONLY)", "state.0 is open for writing yet"),
    "no state": ("os.unlink(state)", "state.0.new: No such file or directory"),
}


@pytest_asyncio.fixture
async def host(firecracker_home: Home) -> AsyncIterator[Host]:
    """Yield a host with a jailed VM."""
    async with opened_host(firecracker_home) as opened:
        await opened.create(NEW)
        await opened.queries.wait("source", State.RUNNING, PATIENCE)
        yield opened


@pytest.fixture
def hostile() -> Iterator[list[Hostile]]:
    """Take note of programs, which end with the test."""
    made: list[Hostile] = []
    yield made
    for one in made:
        one.close()


def source(host: Host) -> Instance:
    return host.queries.instance("source")


def as_its_vmm(home: Home, one: Instance, program: str) -> Hostile:
    """Do something with the identity of an instance's VMM, in its jail."""
    uid = jail_uid(home, one.id)
    assert uid is not None
    return Hostile(jail_root(home, one.id), uid, GID, program)


STORIES = [("standby", what) for what in WRONG] + [("checkpoint", "mem that is written on")]


@pytest.mark.parametrize(("verb", "what"), STORIES)
async def test_what_is_no_snapshot_is_told_and_the_vm_runs_on(
    host: Host,
    firecracker_home: Home,
    hostile: list[Hostile],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
    what: str,
) -> None:
    order, reason = WRONG[what]
    other = firecracker_home.root / "other"
    other.write_bytes(b"precious")
    create = ApiClient.create_snapshot

    async def created(self: ApiClient, state: str, mem: str, *kind: object) -> None:
        await create(self, state, mem, *kind)  # type: ignore[arg-type]
        names = f"state, mem, other = {state!r}, {mem!r}, {str(other)!r}\n"
        hostile.append(await asyncio.to_thread(as_its_vmm, firecracker_home, source(host), names + order))

    with monkeypatch.context() as patch:
        patch.setattr(ApiClient, "create_snapshot", created)
        with pytest.raises(VmmError) as refused:
            await (host.standby("source") if verb == "standby" else host.checkpoint("source", CheckpointRequest()))
    assert refused.value.message.startswith("source: what its VMM wrote is no snapshot of it: ")
    assert reason in refused.value.message
    assert source(host).state is State.RUNNING
    assert (other.read_bytes(), other.stat().st_uid) == (b"precious", 0)
    own = firecracker_home.data / "instances" / source(host).id
    for directory in (own, jail_root(firecracker_home, source(host).id)):
        assert not [path.name for path in directory.iterdir() if path.name.startswith(("mem", "state"))]
    await host.standby("source")
    await host.restore("source")


async def test_a_snapshot_is_roots_and_read_only_once_it_was_taken_out(host: Host, firecracker_home: Home) -> None:
    await host.checkpoint("source", CheckpointRequest(name="point"))
    for path in (firecracker_home.data / "instances" / source(host).id).glob("*.0"):
        status = path.stat()
        assert (status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)) == (0, GID, 0o440)
        assert status.st_nlink == 2, "the checkpoint has the other name, and the jail none"


async def test_an_api_socket_that_is_another_is_not_spoken_to(
    host: Host, firecracker_home: Home, hostile: list[Hostile]
) -> None:
    """What was found is held: only a supervisor that comes later has to find it again."""
    with socket.socket(socket.AF_UNIX) as victim:
        victim.bind(str(firecracker_home.root / "victim"))
        victim.listen()
        victim.setblocking(False)
        link = f"os.unlink('api.sock'); os.symlink({str(firecracker_home.root / 'victim')!r}, 'api.sock')"
        hostile.append(as_its_vmm(firecracker_home, source(host), link))
        await host.standby("source")
        await host.restore("source")
        hostile.append(as_its_vmm(firecracker_home, source(host), link))
        await host.close()
        again = await Host.open(host._settings)
        try:
            with pytest.raises(InvalidStateError, match=r"cannot be asked for a snapshot: its API socket .* is gone"):
                await again.standby("source")
            await again.stop("source")
            with pytest.raises(BlockingIOError):
                victim.accept()
        finally:
            await again.close()


async def test_whatever_it_makes_is_gone_with_it(host: Host, firecracker_home: Home, hostile: list[Hostile]) -> None:
    program = (
        "os.symlink('/', 'everything'); os.makedirs('/'.join(['deep'] * 400)); os.mkfifo('fifo')\n"
        "for n in range(20_000): os.close(os.open(f'file{n}', os.O_CREAT | os.O_WRONLY))\n"
        "os.chmod('deep', 0); os.chmod('.', 0)"
    )
    hostile.append(await asyncio.to_thread(as_its_vmm, firecracker_home, source(host), program))
    await host.stop("source")
    await until_true(lambda: not list(left_of_jails(firecracker_home)))
    await host.start("source")
    await host.queries.wait("source", State.RUNNING, PATIENCE)
    assert cgroups(firecracker_home) == (source(host).id,)
    await host.delete("source")
    assert await asyncio.to_thread(firecracker_home.root.exists)


async def test_what_it_starts_ends_with_it(host: Host, firecracker_home: Home, hostile: list[Hostile]) -> None:
    """In its cgroup, wherever it has gone meanwhile."""
    one = as_its_vmm(firecracker_home, source(host), "os.setsid()")
    hostile.append(one)
    own = OwnCgroups.open(firecracker_home.data)
    (own._unified / source(host).id / "cgroup.procs").write_text(str(one.pid))
    await host.stop("source")
    await until_true(lambda: one.ended)
    await until_true(lambda: cgroups(firecracker_home) == ())


async def test_a_jail_that_cannot_be_made_anew_is_not_used_again(
    host: Host, firecracker_home: Home, hostile: list[Hostile], monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile.append(as_its_vmm(firecracker_home, source(host), "os.symlink('/', 'kernel.1')"))
    with monkeypatch.context() as patch:
        patch.setattr("supervisor.jails.roots.set_aside", lambda *_: None)
        await host.stop("source")
        with pytest.raises(StorageError, match=r"source: its jail cannot be made: .*: File exists; free space"):
            await host.start("source")
    assert source(host).state is State.STOPPED
    await host.start("source")
    assert cgroups(firecracker_home) == (source(host).id,)
