"""Firecracker in jails: whose a VMM is and what it may, what becomes of it, and what is left of its jail."""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path

import psutil
import pytest

from supervisor.models import (
    CheckpointRequest,
    CreateRequest,
    FanOutRequest,
    ForkRequest,
    HostSnapshot,
    Instance,
    State,
)
from tests.harness.host_invariants import left_over
from tests.harness.jails import Identity, cgroups, identity, jail_root, jail_uid, left_of_jails
from tests.harness.opened_host import opened_host
from tests.harness.pagewalker_images import write_image
from tests.harness.refusals import refused
from tests.harness.supervisor_process import (
    PATIENCE,
    Home,
    RunningSupervisor,
    home_at,
    supervisor,
    until,
    walking_source,
)
from tests.harness.verified_guests import one_more_pass, standby_source, two_more_passes, until_verified
from tests.harness.waiting import until as until_true
from tests.harness.waiting import until_console_says

pytestmark = [pytest.mark.skipif(os.geteuid() != 0, reason="jails are made by root")]

COUNT = 16
ALWAYS = ("--jail", "on")
NEVER = ("--jail", "off")
UIDS = range(1879048192, 1895825408)
SHARED = ForkRequest(name="fork", share_memory=True, target_state="Running")


@pytest.fixture
def jailed(firecracker_home: Home) -> Home:
    """Return a home whose supervisor starts nothing outside of a jail."""
    firecracker_home.options = ALWAYS
    return firecracker_home


@contextlib.asynccontextmanager
async def nothing_left(home: Home) -> AsyncIterator[RunningSupervisor]:
    """Run a supervisor, and find nothing of its VMs when they are deleted and it has ended."""
    async with supervisor(home) as running:
        yield running
        await deleted(home, running)
    await until_true(lambda: left_over(home) == [])
    assert cgroups(home) == ()


async def deleted(home: Home, running: RunningSupervisor) -> None:
    """Delete all that there is, and find no process that is of one of its users."""
    instances = await running.client.instances()
    uids = {jail_uid(home, one.id) for one in instances}
    for one in instances:
        if one.source_id is None:
            await running.client.delete(one.id, cascade=True)
    await until_true(lambda: not list(left_of_jails(home)))
    assert [process for process in psutil.process_iter() if _uid(process) in uids] == []


def _uid(process: psutil.Process) -> int:
    """Return whose a process is; nobody's where it only waits to be reaped, by whoever that is left to."""
    with contextlib.suppress(psutil.Error):
        if process.status() != psutil.STATUS_ZOMBIE:
            return int(process.uids().effective)
    return -1


async def walks_on(home: Home, *instances: Instance) -> None:
    """Return when these guests have ended another pass of their memory, and read no wrong byte."""
    for one in instances:
        console = home.data / "instances" / one.id / "console.log"
        ended = await asyncio.to_thread(passes, console)
        await until_true(partial(_more, console, ended))
        assert "CORRUPT" not in await asyncio.to_thread(console.read_text)


def passes(console: Path) -> int:
    return console.read_text().count("pass ")


def _more(console: Path, ended: int) -> bool:
    return passes(console) > ended


async def live(running: RunningSupervisor) -> dict[str, Instance]:
    """Return the instances that have a VMM, by name."""
    return {one.name: one for one in await running.client.instances() if one.vmm_pid is not None}


def check(home: Home, one: Instance) -> Identity:
    """Return what the VMM of an instance may, which is nothing."""
    assert one.vmm_pid is not None
    found = identity(one.vmm_pid)
    assert found.uid == jail_uid(home, one.id)
    assert found.uid in UIDS[1:]
    assert found.gid == UIDS[0]
    assert found.groups == ""
    assert found.capabilities[:3] == (0, 0, 0)
    assert (found.no_new_privileges, found.seccomp) == (True, 2)
    assert any(name.startswith("unified:") or name.startswith(":") for name in found.cgroups)
    assert all(name.endswith(f"/{one.id}") for name in found.cgroups)
    return found


async def test_forks_in_jails_are_nobodys_and_go_on_whatever_ends_beside_them(jailed: Home) -> None:
    async with supervisor(jailed) as running:
        await standby_source(running.client, "source", "passes=0", "hot_mib=4")
        await running.client.fan_out("source", FanOutRequest(count=COUNT, name_prefix="fork"))
        forks = await live(running)
        assert len(forks) == COUNT
        found = {name: check(jailed, one) for name, one in forks.items()}
        assert len({one.uid for one in found.values()}) == COUNT
        await until_verified(running.client, *forks)
        (template,) = (await until(lambda host: True, running.client)).templates
        assert template.page_server_pid is not None
        server = identity(template.page_server_pid)
        assert server.uid in UIDS[1:]
        assert server.uid not in {one.uid for one in found.values()}
        assert (server.capabilities[:3], server.no_new_privileges, server.seccomp) == ((0, 0, 0), True, 2)
        print(f"\n{_table(found | {'page server': server})}")
        os.kill(template.page_server_pid, signal.SIGKILL)
        await until(lambda host: _serving(host) not in (None, template.page_server_pid), running.client)
        await one_more_pass(running.client, *forks)
        await running.end(signal.SIGKILL)
    async with nothing_left(jailed) as after:
        again = await live(after)
        assert {name: one.vmm_pid for name, one in again.items()} == {n: one.vmm_pid for n, one in forks.items()}
        await two_more_passes(after.client, *forks)
        assert {check(jailed, one) for one in again.values()} == set(found.values())


def _table(found: dict[str, Identity]) -> str:
    rows = [("process", "uid", "gid", "CapEff", "NoNewPrivs", "Seccomp", "cgroups")]
    for name, one in found.items():
        groups = f"{len(one.cgroups)} of its own" if one.cgroups else "the supervisor's"
        may = (f"{one.capabilities[2]:x}", str(int(one.no_new_privileges)), str(one.seccomp))
        rows.append((name, str(one.uid), str(one.gid), *may, groups))
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _serving(host: HostSnapshot) -> int | None:
    return host.templates[0].page_server_pid


async def test_two_data_directories_have_jails_of_their_own(jailed: Home) -> None:
    (jailed.root / "2").mkdir()
    with home_at(jailed.root / "2", "firecracker", jailed.firecracker) as other:
        other.options = ALWAYS
        async with nothing_left(jailed) as running:
            source = await walking_source(running.client, "source", "passes=0", "hot_mib=1")
            async with supervisor(other) as second:
                twin = await walking_source(second.client, "source", "passes=0", "hot_mib=1")
                assert check(jailed, source).uid != check(other, twin).uid
                assert (cgroups(jailed), cgroups(other)) == ((source.id,), (twin.id,))
                await second.client.delete("source")
                await one_more_pass(running.client, "source")


async def test_a_jailer_that_is_missing_is_told_where_there_has_to_be_one(jailed: Home) -> None:
    jailed.options = (*ALWAYS, "--jailer", "/nowhere/jailer")
    async with nothing_left(jailed) as running:
        error = await refused(running.client.create(CreateRequest(name="source", image="pagewalker")))
        assert error.code == "dependency_missing"
        assert error.message.startswith("source: it is to run in a jail and cannot: ")
        assert "/nowhere/jailer" in error.message
        assert "no VM starts: each is to run in a jail, and cannot: " in await asyncio.to_thread(running.log.read_text)
        assert error.message.endswith("; or start the supervisor with --jail auto")
        assert await running.client.instances() == []


async def test_where_there_need_be_none_it_runs_without(jailed: Home) -> None:
    jailed.options = ("--jailer", "/nowhere/jailer")
    async with nothing_left(jailed) as running:
        source = await walking_source(running.client, "source", "passes=0", "hot_mib=1")
        assert source.vmm_pid is not None
        assert (identity(source.vmm_pid).uid, jail_uid(jailed, source.id)) == (0, None)
        assert "VMs run without jails: " in await asyncio.to_thread(running.log.read_text)


async def test_the_embedded_vmm_is_refused_where_there_has_to_be_a_jail(jailed: Home) -> None:
    async with nothing_left(jailed) as running:
        new = CreateRequest(name="source", image="pagewalker", hypervisor="embedded")
        error = await refused(running.client.create(new))
        assert "the embedded VMM is Python, and has none" in error.message


async def test_what_runs_outside_goes_on_and_what_starts_next_is_jailed(jailed: Home) -> None:
    """As after an upgrade; and the other way round."""
    for first, second, inside in ((NEVER, ALWAYS, False), (ALWAYS, NEVER, True)):
        jailed.options = first
        async with supervisor(jailed) as running:
            await walking_source(running.client, "source", "passes=0", "hot_mib=1")
            before = await running.client.checkpoint("source", CheckpointRequest(name="before"))
            await running.client.fork("before", SHARED)
            old = await live(running)
            assert [jail_uid(jailed, one.id) is not None for one in old.values()] == [inside] * 2
        jailed.options = second
        async with nothing_left(jailed) as running:
            assert {n: one.vmm_pid for n, one in (await live(running)).items()} == {
                name: one.vmm_pid for name, one in old.items()
            }
            await two_more_passes(running.client, "fork")
            await running.client.fork("before", SHARED.model_copy(update={"name": "next"}))
            await until_verified(running.client, "next")
            after = await running.client.checkpoint("source", CheckpointRequest(name="after"))
            await running.client.fork("after", SHARED.model_copy(update={"name": "later"}))
            await running.client.detach("fork")
            for name in ("source", "fork"):
                await running.client.standby(name)
                await running.client.restore(name)
            await until_verified(running.client, "later", "fork", "source")
            new = await live(running)
            assert {jail_uid(jailed, one.id) is None for one in new.values()} == {inside}
            await running.client.stop("source")
            await running.client.start("source")
            assert before.id and after.id


async def test_each_kind_of_start_is_in_a_jail_with_what_it_needs_and_no_more(jailed: Home) -> None:
    drives = [
        {"drive_id": "data", "is_root_device": False, "path_on_host": "data.raw"},
        {"drive_id": "tools", "is_root_device": False, "path_on_host": "tools.raw", "is_read_only": True},
    ]
    image = write_image(jailed.data / "images" / "disked", {"drives": drives})
    for name in ("data.raw", "tools.raw"):
        (image / name).write_bytes(bytes(1 << 20))
        (image / name).chmod(0o600)
    always = {"api.sock", "dev", "firecracker", "firecracker.pid", "log", "run", "vmm", "disk.data", "disk.tools"}
    async with nothing_left(jailed) as running:
        client = running.client
        source = await client.create(CreateRequest(name="source", image="disked"))
        await until_console_says(jailed.data / "instances" / source.id / "console.log", "pass 1")
        assert _names(jailed, source) == always | {"kernel"}
        await client.checkpoint("source", CheckpointRequest(name="point"))
        await walks_on(jailed, source)
        assert _names(jailed, source) == always | {"kernel"}
        await client.standby("source")
        assert not jail_root(jailed, source.id).exists()
        shared = await client.fork("source", SHARED)
        assert _names(jailed, shared) == always | {"state.1"}
        file = await client.fork("source", SHARED.model_copy(update={"name": "file", "memory_backend": "file"}))
        assert _names(jailed, file) == always | {"state.1", _flat(jailed, file)}
        await walks_on(jailed, shared, file)
        for one in (shared, file):
            uid, root = jail_uid(jailed, one.id), jail_root(jailed, one.id)
            status = {name: (root / name).stat() for name in ("disk.data", "disk.tools", "state.1")}
            assert (status["disk.data"].st_uid, status["disk.data"].st_mode & 0o777) == (uid, 0o600)
            for name in ("disk.tools", "state.1"):
                assert (status[name].st_uid, status[name].st_gid) == (0, UIDS[0])
                assert status[name].st_mode & 0o022 == 0
        assert (image / "tools.raw").stat().st_mode & 0o777 == 0o640
        await walks_on(jailed, await client.restore("point"))
        await client.detach("fork")
        assert not list(jailed.run.glob("*.uffd"))


def _flat(home: Home, one: Instance) -> str:
    """Return the one file that an instance's memory is in."""
    snapshot = json.loads((home.data / "instances" / one.id / "instance.json").read_text())["snapshot"]
    (layer,) = snapshot["layers"]
    return str(layer)


def _names(home: Home, one: Instance) -> set[str]:
    return {path.name for path in jail_root(home, one.id).iterdir()}


async def test_what_a_jail_has_itself_is_no_file_of_an_images(jailed: Home) -> None:
    """A disk that is called as the jailer's copy of its program would be written over by that."""
    drives = [{"drive_id": "far", "is_root_device": False, "socket": "/run/vhost.sock"}]
    write_image(jailed.data / "images" / "far", {"drives": drives})
    async with nothing_left(jailed) as running:
        error = await refused(running.client.create(CreateRequest(name="source", image="far")))
        assert "a drive's backend listens at /run/vhost.sock, outside of any jail" in error.message


@pytest.fixture
def other_user() -> Iterator[int]:
    """Return a user who is nobody here."""
    yield 12345


async def test_a_file_of_somebody_elses_is_copied_and_stays_as_it_is(jailed: Home, other_user: int) -> None:
    drives = [{"drive_id": "tools", "is_root_device": False, "path_on_host": "tools.raw", "is_read_only": True}]
    image = write_image(jailed.data / "images" / "disked", {"drives": drives})
    disk = image / "tools.raw"
    disk.write_bytes(b"tool" * 1024)
    disk.chmod(0o600)
    os.chown(disk, other_user, other_user)
    async with nothing_left(jailed) as running:
        source = await running.client.create(CreateRequest(name="source", image="disked"))
        copy = jail_root(jailed, source.id) / "disk.tools"
        assert copy.read_bytes() == disk.read_bytes()
        assert (copy.stat().st_nlink, copy.stat().st_gid) == (1, UIDS[0])
        status = disk.stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o777) == (other_user, other_user, 0o600)
        await asyncio.to_thread(lambda: None)
        assert source.state is not State.UNKNOWN


async def test_without_what_begins_it_in_its_cgroups_a_vmm_comes_there_by_itself(
    firecracker_home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on another architecture."""
    monkeypatch.setattr("supervisor.jails.found.prepare", lambda _: False)
    async with opened_host(firecracker_home) as host:
        await host.create(CreateRequest(name="source", image="pagewalker", cmd=("passes=0", "hot_mib=1")))
        await host.queries.wait("source", State.RUNNING, PATIENCE)
        check(firecracker_home, host.queries.instance("source"))
        await host.delete("source")
    assert cgroups(firecracker_home) == ()
