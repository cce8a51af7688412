"""What is under way can be ended: asked for by its id, by what ends its instance, and by the end of the supervisor."""

import asyncio
import signal
from contextlib import suppress

import psutil
import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.models import (
    FanOutRequest,
    FanOutResult,
    ForkRequest,
    HostSnapshot,
    Instance,
    Operation,
    State,
)
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, find, gathered, supervisor, until, walking_source
from tests.harness.unix_http import request
from tests.harness.verified_guests import standby_source, two_more_passes, until_verified
from tests.harness.wholeness import walked_on, whole

MANY = FanOutRequest(count=400, concurrency=2)
SHARED = ForkRequest(name="child", share_memory=True, target_state="Running")
SMALL = ("hot_mib=1", "passes=0")


def making(host: HostSnapshot, name: str = "source", made: int = 2) -> bool:
    """Return whether a fan-out of this instance is under way and has made so many forks."""
    at = source.operation if (source := find(host, name)) else None
    return at is not None and at.verb == "fan-out" and at.done >= made


def operation_of(host: HostSnapshot, name: str) -> Operation | None:
    """Return what is shown to be done to the instance of this name, if anything is."""
    one = find(host, name)
    return one.operation if one is not None else None


def under_way(host: HostSnapshot, name: str) -> Operation:
    """Return what is shown to be done to the instance of this name."""
    found = operation_of(host, name)
    assert found is not None
    return found


async def begun(
    client: SupervisorClient, request: FanOutRequest = MANY
) -> "tuple[asyncio.Task[FanOutResult], Operation]":
    """Begin a fan-out of a new source, and return it with what is shown of it once it has made some forks."""
    await standby_source(client, "source", *SMALL)
    task = asyncio.create_task(client.fan_out("source", request))
    return task, under_way(await until(making, client), "source")


async def frozen(client: SupervisorClient, name: str, verb: str) -> "asyncio.Task[Instance]":
    """Have an instance's VMM answer nobody, and return the verb that waits for it."""
    pid = (await client.instance(name)).vmm_pid
    assert pid is not None
    psutil.Process(pid).send_signal(signal.SIGSTOP)
    waiting = asyncio.create_task(client.standby(name) if verb == "standby" else client.checkpoint(name))
    await until(lambda host: (one := find(host, name)) is not None and one.busy == verb, client)
    return waiting


async def test_a_fan_out_says_how_far_it_is_and_ends_when_that_is_asked(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        task, shown = await begun(client)
        assert (shown.verb, shown.unit, shown.total, shown.name) == ("fan-out", "forks", 400, "source")
        host = await until(lambda host: under_way(host, "source").done >= shown.done + 2, client)
        assert under_way(host, "source").id == shown.id
        assert shown.id in {one.id for one in await client.operations()}

        ended = await client.cancel(shown.id)
        assert (ended.outcome, ended.total) == ("cancelled", 400)
        result = await task
        made = [child.name for child in result.children if child.instance is not None]
        assert len(made) == ended.done < 400
        unmade = [child.error for child in result.children if child.error is not None]
        assert {error.code for error in unmade} == {"cancelled"}
        assert all("asked for that" in error.message for error in unmade)
        source = await client.instance("source")
        assert (source.fork_count, source.operation) == (len(made), None)
        host = await whole(running)
        assert sorted(made) == sorted(one.name for one in host.instances if one.name != "source")
        await walked_on(client)
        gone = await refused(client.cancel(shown.id))
        assert (gone.status, gone.code) == (404, "not_found")
        await client.delete("source", cascade=True)


async def test_what_a_cancelled_fan_out_has_made_goes_where_that_is_asked(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        task, shown = await begun(client)
        ended = await client.cancel(shown.id, delete_made=True)
        assert (ended.outcome, ended.done) == ("cancelled", 0)
        assert {child.error.code for child in (await task).children if child.error} == {"cancelled"}
        assert [one.name for one in await client.instances()] == ["source"]
        assert (await client.instance("source")).mem_locked is False
        again = await client.fork("source", SHARED)
        await until_verified(client, again.name)
        await client.delete("source", cascade=True)
    assert embedded.processes() == []


async def test_a_client_that_goes_cancels_nothing(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", *SMALL)
        async with SupervisorClient(embedded.socket) as leaving:
            task = asyncio.create_task(leaving.fan_out("source", MANY.model_copy(update={"count": 12})))
            await until(making, client)
            task.cancel()
            await gathered(task)
        await until(lambda host: len(host.instances) == 13 and find(host, "source-12") is not None, client)
        await until(lambda host: all(one.busy is None for one in host.instances), client)
        assert {one.state for one in await client.instances() if one.name != "source"} == {State.RUNNING}
        await client.delete("source", cascade=True)


async def test_a_cascade_ends_the_fan_outs_below_it_and_nothing_appears_meanwhile(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        task, _ = await begun(client)
        cascade = asyncio.create_task(client.delete("source", cascade=True))
        await until(lambda host: (one := find(host, "source")) is None or one.busy != "fan-out", client)
        refusals = await gathered(client.fork("source", SHARED), client.fan_out("source", MANY))
        assert all(isinstance(one, ApiError) and one.status in (404, 409) for one in refusals), refusals
        await cascade
        result = await task
        assert any(
            child.error and "deletes source with all below it" in child.error.message for child in result.children
        )
        assert await client.instances() == []
    assert home.processes() == []


async def test_a_cascade_can_be_cancelled_and_asked_for_again(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", *SMALL)
        child = await client.fork("source", SHARED)
        assert child.vmm_pid is not None
        waiting = await frozen(client, "child", "standby")
        cascade = asyncio.create_task(client.delete("source", cascade=True))
        host = await until(lambda host: (one := find(host, "source")) is not None and one.busy == "cascade", client)
        ended = await client.cancel(under_way(host, "source").id)
        assert (ended.outcome, ended.done, ended.total) == ("cancelled", 0, 2)
        error = await refused(cascade)
        assert (error.status, error.code) == (409, "cancelled")
        assert "0 of 2 instances deleted" in error.message
        assert "ask again to go on" in error.message
        psutil.Process(child.vmm_pid).send_signal(signal.SIGCONT)
        assert (await waiting).state is State.STANDBY
        await client.delete("source", cascade=True)
        assert await client.instances() == []


@pytest.mark.parametrize("verb", ["standby", "checkpoint"])
@pytest.mark.parametrize("end", ["stop", "delete", "cascade"])
async def test_stop_and_delete_end_a_snapshot_that_the_vmm_does_not_answer(embedded: Home, verb: str, end: str) -> None:
    await ended_while_frozen(embedded, verb, end)


async def test_stop_ends_a_snapshot_that_firecracker_does_not_answer(firecracker_home: Home) -> None:
    await ended_while_frozen(firecracker_home, "standby", "stop")


async def ended_while_frozen(home: Home, verb: str, end: str) -> None:
    """End an instance on which a snapshot waits for an answer that does not come."""
    async with supervisor(home) as running:
        client = running.client
        await walking_source(client, "source", *SMALL)
        waiting = await frozen(client, "source", verb)
        if end == "stop":
            stopped = await client.stop("source")
            assert (stopped.state, stopped.exit_message) == (State.STOPPED, "stopped on request")
        else:
            await client.delete("source", cascade=end == "cascade")
            assert await client.instances() == []
        error = await refused(waiting)
        assert error.code in ("cancelled", "vmm_failed")
        host = await whole(running)
        for one in host.instances:
            await client.start(one.id)
            await client.delete(one.id)
    assert home.processes() == []


async def test_a_cancelled_standby_leaves_the_vm_running(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await walking_source(client, "source", *SMALL)
        source = await client.instance("source")
        waiting = await frozen(client, "source", "standby")
        shown = under_way(await until(lambda host: True, client), "source")
        cancelled = asyncio.create_task(client.cancel(shown.id))
        error_of = asyncio.create_task(refused(waiting))
        await until(lambda host: (at := operation_of(host, "source")) is None or at.cancelled is not None, client)
        assert source.vmm_pid is not None
        psutil.Process(source.vmm_pid).send_signal(signal.SIGCONT)
        assert (await cancelled).outcome == "cancelled"
        assert "asked for that" in (await error_of).message
        await walked_on(client)
        assert (await client.standby("source")).layers == 1, "the dirty log of a cancelled snapshot may be lost"
        await client.restore("source")
        await walked_on(client)
        await client.delete("source")


async def test_a_cancelled_detach_leaves_the_fork_served_and_can_be_asked_for_again(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=8", "passes=0")
        fork = await client.fork("source", SHARED.model_copy(update={"prefetch": "off", "record": "off"}))
        host = await until(lambda host: bool(host.templates and host.templates[0].page_server_pid), client)
        server = psutil.Process(host.templates[0].page_server_pid or 0)
        server.suspend()
        detaching = asyncio.create_task(client.detach(fork.id))
        host = await until(lambda host: operation_of(host, "child") is not None, client)
        cancelled = asyncio.create_task(client.cancel(under_way(host, "child").id))
        await until(lambda host: (at := operation_of(host, "child")) is None or at.cancelled is not None, client)
        with suppress(psutil.NoSuchProcess):
            server.resume()
        error = await refused(detaching)
        assert (error.status, error.code) == (409, "cancelled")
        assert (await cancelled).outcome == "cancelled"
        locked = await client.instance("source")
        assert (locked.fork_count, (await client.instance("child")).fork_kind) == (1, "share_memory")
        await until_verified(client, "child")
        assert (await client.detach("child")).fork_kind == "copy"
        await client.delete("source")
        await two_more_passes(client, "child")
        await client.delete("child")


async def test_the_supervisor_ends_in_the_middle_of_a_fan_out(home: Home) -> None:
    async with supervisor(home) as running:
        task, _ = await begun(running.client)
        assert await running.end() == 0
        (outcome,) = await gathered(task)
        if isinstance(outcome, FanOutResult):
            assert {child.error.code for child in outcome.children if child.error} <= {"cancelled", "stopping"}
    async with supervisor(home) as running:
        host = await whole(running)
        assert 2 < len(host.instances) < 401
        await walked_on(running.client)
        await running.client.delete("source", cascade=True)
    assert home.processes() == []


@pytest.mark.parametrize("verb", ["standby", "checkpoint"])
async def test_the_supervisor_ends_although_a_vmm_answers_nothing(home: Home, verb: str) -> None:
    async with supervisor(home) as running:
        await walking_source(running.client, "source", *SMALL)
        pid = (await running.client.instance("source")).vmm_pid
        waiting = await frozen(running.client, "source", verb)
        assert await running.end() == 0
        await gathered(waiting)
    assert pid is not None
    psutil.Process(pid).send_signal(signal.SIGCONT)
    async with supervisor(home) as running:
        source = await running.client.instance("source")
        assert (source.state, source.vmm_pid) == (State.RUNNING, pid)
        await walked_on(running.client)
        await running.client.delete("source")
    assert home.processes() == []


async def test_only_a_fan_out_has_made_what_could_go(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client, "source", *SMALL)
        waiting = await frozen(client, "source", "standby")
        shown = under_way(await until(lambda host: True, client), "source")
        error = await refused(client.cancel(shown.id, delete_made=True))
        assert (error.status, error.code) == (400, "bad_request")
        assert under_way(await until(lambda host: True, client), "source").cancelled is None
        await client.delete("source")
        await refused(waiting)
        unknown, _ = await asyncio.to_thread(request, embedded.socket, "DELETE", "/operations/op-0?made=all")
        assert unknown == 400


@pytest.mark.parametrize("end", ["stop", "delete", "cascade"])
@pytest.mark.parametrize("verb", ["start", "restore"])
async def test_what_waits_for_a_vmm_that_hangs_at_its_start_is_ended(embedded: Home, verb: str, end: str) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client, "source", *SMALL)
        await (client.stop("source") if verb == "start" else client.standby("source"))
        freezing = asyncio.create_task(first_frozen(embedded, "--api-sock"))
        waiting = asyncio.create_task(client.start("source") if verb == "start" else client.restore("source"))
        await freezing
        if end == "stop":
            assert "there is nothing to stop" in (await refused(client.stop("source"))).message
        else:
            await client.delete("source", cascade=end == "cascade")
        assert (await refused(waiting)).code == "cancelled"
        for one in (await whole(running)).instances:
            await client.delete(one.id)
    assert embedded.processes() == []


async def test_a_fork_whose_page_server_hangs_at_its_start_is_cancelled(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", *SMALL)
        freezing = asyncio.create_task(first_frozen(embedded, "page_server"))
        waiting = asyncio.create_task(client.fork("source", SHARED))
        await freezing
        host = await until(lambda host: operation_of(host, "child") is not None, client)
        assert (await client.cancel(under_way(host, "child").id)).outcome == "cancelled"
        assert (await refused(waiting)).code == "cancelled"
        await client.fork("source", SHARED)
        await until_verified(client, "child")
        await client.delete("source", cascade=True)
    assert embedded.processes() == []


async def first_frozen(home: Home, word: str) -> None:
    """Stop the next process of a home that has this in its command line, as soon as it is there."""
    before = {process.pid for process in home.processes()}
    while True:
        for process in home.processes():
            with suppress(psutil.Error):
                if process.pid not in before and any(word in argument for argument in process.cmdline()):
                    process.suspend()
                    return
        await asyncio.sleep(0)
