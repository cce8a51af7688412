"""The run directory removed while VMs run: what can be made again is, guests see no wrong byte, the rest says so."""

import asyncio
import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.guests.pagewalker import MIB
from supervisor.models import CreateRequest, ForkRequest, HostSnapshot, Instance
from supervisor.system.unix_sockets import connect
from tests.harness.held import is_held
from tests.harness.jails import api_socket, jail_uid
from tests.harness.supervisor_process import (
    Home,
    RunningSupervisor,
    find,
    guest,
    sample,
    supervisor,
    until,
    until_walking,
    walking_source,
)
from tests.harness.unix_http import request
from tests.harness.verified_guests import one_more_pass, standby_source, two_more_passes
from tests.harness.waiting import until_console_says, until_log_says

BALLAST_MIB = 8
SERVED = ForkRequest(name="fork", share_memory=True, target_state="Running", prefetch="off", record="off")

UNJAILED = ("--jail", "off")
"""VMs in jails have no socket there that could be lost."""


async def served_fork(client: SupervisorClient, **options: object) -> Instance:
    """Make a fork that walks for ever over pages of a page server."""
    await standby_source(client, "source", "passes=0", "hot_mib=16")
    return await client.fork("source", SERVED.model_copy(update=options))


async def ballooned_fork(home: Home, client: SupervisorClient) -> Instance:
    """The same of a guest with a balloon, which has given its ballast back; where it gets that back it reads zeros."""
    words = ("passes=0", "hot_mib=4", f"ballast_mib={BALLAST_MIB}")
    source = await client.create(CreateRequest(name="source", image="pagewalker", cmd=words))
    await client.stop("source")
    vm_json = home.data / "instances" / source.id / "vm.json"
    balloon = {"amount_mib": 0, "deflate_on_oom": False, "stats_polling_interval_s": 0}
    vm_json.write_text(json.dumps(json.loads(vm_json.read_text()) | {"balloon": balloon}))
    await client.start("source")
    await until_walking(client, "source")
    await client.standby("source")
    fork = await client.fork("source", SERVED)
    await one_more_pass(client, "fork")
    await inflate(home, fork, BALLAST_MIB)
    return fork


async def inflate(home: Home, fork: Instance, amount_mib: int) -> None:
    """Have a guest give memory to its balloon, or take it back, and return when it has."""
    assert request(api_socket(home, fork.id), "PATCH", "/balloon", {"amount_mib": amount_mib}) == (204, None)
    console = home.data / "instances" / fork.id / "console.log"
    await until_console_says(console, f"balloon {amount_mib * MIB // 4096}")


async def page_server_of(client: SupervisorClient) -> int:
    host = await until(lambda host: bool(host.templates and host.templates[0].page_server_pid), client)
    pid = host.templates[0].page_server_pid
    assert pid is not None
    return pid


async def until_told(client: SupervisorClient, name: str, words: str) -> Instance:
    """Return the instance once its state_error has these words."""

    def told(host: HostSnapshot) -> bool:
        instance = find(host, name)
        return instance is not None and words in (instance.state_error or "")

    instance = find(await until(told, client), name)
    assert instance is not None
    return instance


async def refused_for_want_of_its_socket(client: SupervisorClient, name: str) -> None:
    with pytest.raises(ApiError, match=r"its API socket .* is gone") as refused:
        await client.standby(name)
    assert refused.value.status == 409
    assert (await client.instance(name)).state == "Running"


async def gone(home: Home, running: RunningSupervisor, *pids: int) -> None:
    """Kill the supervisor with others, and remove the run directory."""
    await killed(running, *pids)
    shutil.rmtree(home.run)


async def killed(running: RunningSupervisor, *pids: int) -> None:
    for pid in (running.process.pid, *pids):
        psutil.Process(pid).kill()
    await running.end(signal.SIGKILL)


def remove_page_serving(home: Home) -> None:
    """Remove what page servers have in the run directory; VMMs still answer."""
    shutil.rmtree(home.run / "pages")
    for path in home.run.glob("*.pages"):
        path.unlink()


async def test_a_supervisor_that_runs_makes_all_of_it_again_and_still_reaches_its_vms(home: Home) -> None:
    home.options = UNJAILED
    async with supervisor(home) as running:
        client = running.client
        fork = await served_fork(client)
        server = await page_server_of(client)
        modes = [path.stat().st_mode for path in (home.run, home.run / "pages", home.socket)]
        shutil.rmtree(home.run)
        await until_log_says(running.log, "something was removed")
        (alarm,) = [line for line in running.log.read_text().splitlines() if "something was removed" in line]
        assert " ERROR " in alarm
        for what in ("the directory", "supervisor.sock", "control sockets", "a page map", "the API sockets of fork"):
            assert what in alarm
        assert [path.stat().st_mode for path in (home.run, home.run / "pages", home.socket)] == modes
        assert (home.run / "lock").read_text() == f"{running.process.pid}\n"
        async with SupervisorClient(home.socket) as found:
            told = await until_told(found, "fork", "is gone")
            assert "put it to standby while that runs" in (told.state_error or "")
            await two_more_passes(found, "fork")
            assert await page_server_of(found) == server
            # Its page map is there for a successor, and heeded.
            psutil.Process(server).kill()
            await until(lambda host: bool(host.templates[0].page_server_restarts), found)
            await two_more_passes(found, "fork")
            await found.fork("source", SERVED.model_copy(update={"name": "other"}))
            await one_more_pass(found, "fork", "other")
            assert (await found.standby(fork.id)).state_error is None
            await found.restore("fork")
            await one_more_pass(found, "fork")
            assert (await found.instance("fork")).state_error is None
            for name in ("fork", "other", "source"):
                await found.delete(name)
    assert home.processes() == []


async def test_vms_in_jails_lose_nothing_there(firecracker_home: Home) -> None:
    async with supervisor(firecracker_home) as running:
        fork = await served_fork(running.client)
        if jail_uid(firecracker_home, fork.id) is None:
            pytest.skip("jails are made by root")
        await gone(firecracker_home, running)
    async with supervisor(firecracker_home) as running:
        await one_more_pass(running.client, "fork")
        assert (await running.client.instance("fork")).state_error is None
        await running.client.standby("fork")
        await running.client.restore("fork")
        await one_more_pass(running.client, "fork")
        for name in ("fork", "source"):
            await running.client.delete(name)


@pytest.mark.parametrize("lost", ["pages", "supervisor.sock", "lock", "*.sock", "*.pages", "pages/*.map"])
async def test_a_part_of_it_is_made_again_as_the_whole_is(embedded: Home, lost: str) -> None:
    async with supervisor(embedded) as running:
        await served_fork(running.client)
        missing = list(embedded.run.glob(lost))
        for path in missing:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        await until_log_says(running.log, "something was removed")
        sockets = [path for path in missing if path.suffix == ".sock" and path != embedded.socket]
        assert [path for path in missing if not path.exists()] == sockets
        async with SupervisorClient(embedded.socket) as client:
            await one_more_pass(client, "fork")
            for name in ("fork", "source"):
                await client.delete(name)


async def test_the_next_supervisor_finds_vms_and_page_servers_without_their_sockets(home: Home) -> None:
    home.options = UNJAILED
    async with supervisor(home) as running:
        fork = await served_fork(running.client)
        await walking_source(running.client, "alone", "passes=0")
        server = await page_server_of(running.client)
        await gone(home, running)
    async with supervisor(home) as running:
        client = running.client
        assert await page_server_of(client) == server
        for name in ("fork", "alone"):
            told = await until_told(client, name, "is gone")
            assert "stop and delete end it" in (told.state_error or "")
            await refused_for_want_of_its_socket(client, name)
        await two_more_passes(client, "fork")
        assert (home.run / "pages" / f"{fork.id}.map").exists()
        assert (await client.stop("alone")).state_error is None
        for name in ("fork", "alone", "source"):
            await client.delete(name)
    assert home.processes() == []


async def test_without_page_server_or_map_a_guest_that_gives_nothing_back_is_served_by_a_map_made_anew(
    home: Home,
) -> None:
    async with supervisor(home) as running:
        await served_fork(running.client)
        await gone(home, running, await page_server_of(running.client))
    async with supervisor(home) as running:
        client = running.client
        await until(lambda host: bool(host.templates[0].page_server_restarts), client)
        await two_more_passes(client, "fork")
        assert "took over 1 fork in" in running.log.read_text()
        assert "page faults" not in ((await client.instance("fork")).state_error or "")
        for name in ("fork", "source"):
            await client.delete(name)
    assert home.processes() == []


@pytest.mark.parametrize("supervised", [True, False], ids=["running", "killed"])
async def test_what_a_guest_gave_back_outlives_the_page_maps_in_its_page_server(home: Home, supervised: bool) -> None:
    async with supervisor(home) as running:
        fork = await ballooned_fork(home, running.client)
        server = await page_server_of(running.client)
        if supervised:
            remove_page_serving(home)
            await until_log_says(running.log, "something was removed")
        await killed(running)
    if not supervised:
        remove_page_serving(home)
    async with supervisor(home) as running:
        client = running.client
        assert await page_server_of(client) == server
        psutil.Process(server).kill()
        await until(lambda host: bool(host.templates[0].page_server_restarts), client)
        await inflate(home, fork, 0)
        await two_more_passes(client, "fork")
        assert (await client.instance("fork")).state_error is None
        for name in ("fork", "source"):
            await client.delete(name)


async def test_a_guest_that_may_have_given_pages_back_is_not_served_without_its_map_and_says_so(home: Home) -> None:
    async with supervisor(home) as running:
        await ballooned_fork(home, running.client)
        await gone(home, running, await page_server_of(running.client))
    async with supervisor(home) as running:
        client = running.client
        told = await until_told(client, "fork", "its page faults are not answered")
        assert "stop and delete end it" in (told.state_error or "")
        assert told.state == "Running"
        await until_log_says(running.log, "took over 0 of 1 fork in")
        assert guest(await until(lambda host: True, client), "fork").corrupt is None
        other = await client.fork("source", SERVED.model_copy(update={"name": "other"}))
        await one_more_pass(client, other.name)
        for name in ("fork", "other", "source"):
            await client.delete(name)
    assert home.processes() == []


async def test_a_guest_that_waits_for_a_page_without_a_map_raises_the_alarm_and_reads_nothing_wrong(home: Home) -> None:
    async with supervisor(home) as running:
        fork = await ballooned_fork(home, running.client)
        await killed(running, await page_server_of(running.client))
    remove_page_serving(home)
    async with supervisor(home) as running:
        client = running.client
        await until_told(client, "fork", "its page faults are not answered")
        # It touches what it is given back before it tells.
        assert request(api_socket(home, fork.id), "PATCH", "/balloon", {"amount_mib": 0}) == (204, None)
        await until_log_says(running.log, "its guest has waited")
        waits = await until(lambda host: sample(host, "fork").oldest_fault_ms > 1000, client)
        assert guest(waits, "fork").corrupt is None
        assert "its guest goes on" not in running.log.read_text()
        for name in ("fork", "source"):
            await client.delete(name)


class InSession(Home):
    """A home whose run directory lies in another one, that goes with a login session."""

    @property
    def run(self) -> Path:
        return self.root / "session" / "run"


async def test_without_a_place_for_it_the_connections_that_are_open_go_on_until_there_is_one(embedded: Home) -> None:
    home = InSession(embedded.root)
    async with supervisor(home) as running:
        client = running.client
        await served_fork(client)
        waiting = asyncio.create_task(until_told(client, "fork", "is gone"))
        await until(lambda host: True, client)
        shutil.rmtree(home.run.parent)
        await until_log_says(running.log, "tried again: the directory (No such file or directory)")
        assert "put it to standby" in ((await waiting).state_error or "")
        home.run.parent.mkdir()
        await until_log_says(running.log, "supervisor.sock; control sockets")
        assert running.log.read_text().count("tried again") == 1
        async with SupervisorClient(home.socket) as found:
            await one_more_pass(found, "fork")
            for name in ("fork", "source"):
                await found.delete(name)


async def test_one_that_ends_without_its_run_directory_ends_well(embedded: Home) -> None:
    home = InSession(embedded.root)
    async with supervisor(home) as running:
        await walking_source(running.client, "alone", "passes=0")
        shutil.rmtree(home.run.parent)
        assert await running.end() == 0
    async with supervisor(home) as running:
        await until_told(running.client, "alone", "is gone")
        await running.client.delete("alone")


def a_directory(path: Path) -> None:
    path.mkdir()


def a_file(path: Path) -> None:
    path.write_text("somebody's")


@pytest.mark.parametrize("make", [a_directory, a_file])
async def test_what_somebody_puts_in_the_place_of_a_socket_is_left_alone(
    embedded: Home, make: Callable[[Path], None]
) -> None:
    async with supervisor(embedded) as running:
        fork = await served_fork(running.client)
        places = [embedded.socket, embedded.run / f"{fork.id}.sock", next(embedded.run.glob("*.pages"))]
        for path in places:
            path.unlink()
            make(path)
        await until_log_says(running.log, "lost for good: the API sockets of fork")
        await until_log_says(running.log, "tried again")
        assert all(path.is_dir() or path.read_text() == "somebody's" for path in places)
        for path in (places[0], places[2]):
            path.rmdir() if path.is_dir() else path.unlink()
        await until_log_says(running.log, "there again: supervisor.sock; control sockets")
        async with SupervisorClient(embedded.socket) as client:
            await one_more_pass(client, "fork")
            for name in ("fork", "source"):
                await client.delete(name)


async def test_a_second_supervisor_gets_neither_the_directory_nor_the_vms(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await walking_source(running.client, "alone", "passes=0")
        shutil.rmtree(embedded.run)
        embedded.run.mkdir()
        second = await asyncio.create_subprocess_exec(*embedded.command(), stderr=asyncio.subprocess.PIPE)
        assert second.stderr is not None
        assert f"another supervisor (pid {running.process.pid}) holds".encode() in await second.stderr.read()
        assert await second.wait() == 1
        await until_log_says(running.log, "something was removed")
        assert connect(embedded.socket) == 0
        async with SupervisorClient(embedded.socket) as client:
            await one_more_pass(client, "alone")
            await client.delete("alone")


async def test_the_directories_are_held_against_the_aging_of_systemd(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        assert all(map(is_held, (embedded.data, embedded.run, embedded.run / "pages")))
        await served_fork(running.client)
        shutil.rmtree(embedded.run)
        await until_log_says(running.log, "something was removed")
        assert all(map(is_held, (embedded.run, embedded.run / "pages")))
        await running.end(signal.SIGKILL)
    assert all(map(is_held, (embedded.run, embedded.run / "pages"))), "by the page server"
    async with supervisor(embedded) as running:
        for name in ("fork", "source"):
            await running.client.delete(name)
    assert not is_held(embedded.run)
