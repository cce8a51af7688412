"""Detach: the fork keeps every page, the guest never stops, the source is free; abandoned half-way nothing changes."""

import asyncio
import os
import signal
import time

import psutil

from forktui.client.api import ApiError, SupervisorClient
from supervisor.models import CreateRequest, ForkRequest, Instance, State
from supervisor.uffd.page_map import ABSENT, PageMapReader
from tests.harness.refusals import refused
from tests.harness.supervisor_process import (
    PATIENCE,
    Home,
    find,
    sample,
    supervisor,
    until,
    until_walking,
    walking_source,
)
from tests.harness.verified_guests import two_more_passes

ENDLESS = "passes=0"
COLD = ForkRequest(share_memory=True, target_state="Running", prefetch="off", record="off")


async def cold_fork(client: SupervisorClient, hot_mib: int = 8, *, track_dirty_pages: bool = True) -> Instance:
    """A running fork that has few of its pages, of a source that walks for ever."""
    await client.create(
        CreateRequest(
            name="source",
            image="pagewalker",
            size="256MB",
            cmd=(ENDLESS, f"hot_mib={hot_mib}"),
            track_dirty_pages=track_dirty_pages,
        )
    )
    await until_walking(client, "source")
    await client.standby("source")
    return await client.fork("source", COLD.model_copy(update={"name": "fork"}))


async def interrupted(home: Home, client: SupervisorClient, fork: Instance, pid: int) -> BaseException | None:
    """Return how a detach ends when this process is killed once a tenth of what was absent has come.

    The rest takes some 100 ms more.
    """
    with PageMapReader(home.run / "pages" / f"{fork.id}.map") as pages:
        absent = pages.pages().count(ABSENT)

        def kill() -> None:
            deadline = time.monotonic() + PATIENCE
            while pages.pages().count(ABSENT) > absent * 0.9:
                assert time.monotonic() < deadline, "nothing is populated"
            os.kill(pid, signal.SIGKILL)

        detaching = asyncio.create_task(client.detach(fork.id))
        await asyncio.to_thread(kill)
        await asyncio.wait((detaching,))
        return detaching.exception()


async def test_a_detached_fork_goes_on_and_its_source_can_be_restored_and_deleted(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        fork = await cold_fork(client)
        directory = home.data / "instances" / fork.id
        assert len(list(directory.glob("mem.*"))) == 1
        detached = await client.detach("fork")
        assert (detached.state, detached.vmm_pid) == (State.RUNNING, fork.vmm_pid)
        assert (detached.fork_kind, detached.template_id, detached.memory_backend) == ("copy", None, None)
        assert detached.source_id == fork.source_id, "it is in the tree where it was"
        source = await client.instance("source")
        assert (source.fork_count, source.mem_locked, source.locked_by) == (0, False, ())
        base = next(directory.glob("mem.*"))
        assert base.stat().st_nlink > 1, "its next diff layer is relative to what it shares with its source"
        assert "no page map" in (await refused(client.memory("fork", 10))).message
        assert not (home.run / "pages" / f"{fork.id}.map").exists()
        again = await refused(client.detach("fork"))
        assert (again.status, again.code) == (409, "invalid_state")

        await client.restore("source")
        host = await two_more_passes(client, "fork", "source")
        assert host.templates == (), "nobody serves the fork any more"
        await client.delete("source")
        await two_more_passes(client, "fork")
        await client.standby("fork")
        assert (await client.instance("fork")).layers == 2
        layers = list(directory.glob("mem.*"))
        assert [(layer.stat().st_size, layer.stat().st_nlink) for layer in layers] == [(fork.size_bytes, 1)] * 2
        assert base in layers
        await client.restore("fork")
        await two_more_passes(client, "fork")
        await client.delete("fork")
    assert home.processes() == []
    assert [path.name for path in home.run.rglob("*") if path.name != "pages"] == []


async def test_a_fork_whose_snapshots_are_whole_keeps_nothing_of_its_source(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        fork = await cold_fork(client, track_dirty_pages=False)
        directory = embedded.data / "instances" / fork.id
        assert (await client.detach("fork")).layers == 0
        assert list(directory.glob("mem.*")) == list(directory.glob("state.*")) == []
        await client.delete("source")
        await two_more_passes(client, "fork")
        assert (await client.standby("fork")).layers == 1
        assert [layer.stat().st_size for layer in directory.glob("mem.*")] == [fork.size_bytes]
        await client.restore("fork")
        await two_more_passes(client, "fork")
        await client.delete("fork")
    assert embedded.processes() == []


async def test_one_of_several_forks_releases_its_share_only(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await cold_fork(client)
        await client.fork("source", COLD.model_copy(update={"name": "other"}))
        asleep = ForkRequest(name="asleep", share_memory=True, target_state="Standby")
        await client.fork("source", asleep)
        await client.fork("source", asleep.model_copy(update={"name": "stopped", "target_state": "Stopped"}))
        file = ForkRequest(name="file", share_memory=True, target_state="Running", memory_backend="file")
        await client.fork("source", file)
        for left, name in enumerate(("fork", "asleep", "stopped", "file")):
            detached = await client.detach(name)
            assert detached.fork_kind == "copy"
            assert (await client.instance("source")).fork_count == 4 - left
        assert (await refused(client.restore("source"))).code == "invalid_state"
        await two_more_passes(client, "fork", "other", "file")
        assert (await client.restore("asleep")).memory_backend == "file"
        await client.delete("other")
        await client.delete("source")
        await two_more_passes(client, "fork", "asleep", "file")
        for name in ("fork", "asleep", "stopped", "file"):
            await client.delete(name)
    assert embedded.processes() == []


async def test_a_page_server_killed_half_way_changes_nothing_and_the_same_call_does_it(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        fork = await cold_fork(client, hot_mib=192)
        host = await until(lambda host: bool(host.templates and host.templates[0].page_server_pid), client)
        server = host.templates[0].page_server_pid
        assert server is not None
        error = await interrupted(home, client, fork, server)
        assert isinstance(error, ApiError), "it was done before it could be interrupted"
        assert (error.status, error.code) == (500, "page_server_failed")
        assert error.message.startswith("fork: detach abandoned, it is as it was: ")
        kept = await client.instance("fork")
        assert (kept.fork_kind, kept.template_id, kept.vmm_pid) == ("share_memory", fork.template_id, fork.vmm_pid)
        assert (await client.instance("source")).locked_by == ("fork",)
        await until(lambda host: any(t.page_server_restarts and t.page_server_pid for t in host.templates), client)
        await two_more_passes(client, "fork")
        await client.detach("fork")
        await client.restore("source")
        await two_more_passes(client, "fork", "source")
        await client.delete("fork")
        await client.delete("source")


async def test_a_supervisor_killed_half_way_leaves_a_fork_that_holds_its_lock(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        fork = await cold_fork(client, hot_mib=192)
        error = await interrupted(home, client, fork, running.process.pid)
        assert error is not None, "it was done before it could be interrupted"
        await running.end(signal.SIGKILL)
    async with supervisor(home) as running:
        client = running.client
        host = await until(lambda host: True, client)
        kept = find(host, "fork")
        assert kept is not None
        assert (kept.state, kept.fork_kind, kept.vmm_pid) == (State.RUNNING, "share_memory", fork.vmm_pid)
        assert (await client.instance("source")).locked_by == ("fork",)
        await two_more_passes(client, "fork")
        await client.detach("fork")
        await client.delete("source")
        host = await two_more_passes(client, "fork")
        assert sample(host, "fork").private_bytes > 192 << 20
        await client.delete("fork")
    assert home.processes() == []


async def test_a_fork_whose_vmm_dies_meanwhile_is_stopped_with_its_reason(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        fork = await cold_fork(client, hot_mib=64)
        host = await until(lambda host: bool(host.templates and host.templates[0].page_server_pid), client)
        server = psutil.Process(host.templates[0].page_server_pid or 0)
        server.suspend()
        detaching = asyncio.create_task(client.detach("fork"))
        await until(lambda host: any(_populates(one) for one in host.instances), client)
        assert fork.vmm_pid is not None
        psutil.Process(fork.vmm_pid).kill()
        server.resume()
        error = await refused(detaching)
        assert error.code == "page_server_failed"
        await client.wait("fork", State.STOPPED, PATIENCE)
        assert (await client.instance("source")).locked_by == ("fork",)
        assert (await client.detach("fork")).state is State.STOPPED
        await client.delete("source")
        await client.delete("fork")


def _populates(one: Instance) -> bool:
    return one.operation is not None and one.operation.step == "populate memory"


async def test_only_a_share_memory_fork_can_let_go(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client, "source", "hot_mib=4")
        error = await refused(client.detach("source"))
        assert (error.status, error.code) == (409, "invalid_state")
        assert "holds no lock" in error.message
        assert (await refused(client.detach("nobody"))).status == 404
        await client.delete("source")
