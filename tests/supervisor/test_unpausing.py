"""A VM whose VMM falls silent over a snapshot: it runs on when its VMM answers again, and can be ended before that."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from supervisor.errors import OperationCancelledError, VmmError
from supervisor.host.host import Host
from supervisor.models import Activity, CheckpointRequest, CreateRequest, Instance, State
from supervisor.operations import unpausing
from supervisor.runtime import vmms
from supervisor.vmm import api_client
from tests.harness.jails import api_socket, jail_uid
from tests.harness.opened_host import opened_host
from tests.harness.supervisor_process import PATIENCE, Home
from tests.harness.waiting import until_console_says


@pytest_asyncio.fixture
async def host(home: Home, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Host]:
    """One that does not wait for minutes."""
    monkeypatch.setattr(api_client, "SNAPSHOT", 0.5)
    for room in (vmms, unpausing):
        monkeypatch.setattr(room, "QUICK", 0.5)
    async with opened_host(home) as opened:
        yield opened


LOST = pytest.mark.parametrize("lost", [False, True], ids=["socket", "no socket"])


def lose_socket(home: Home, instance: Instance) -> None:
    """Leave the connection that is open as the only way to its VMM."""
    api_socket(home, instance.id).unlink()


async def silent_at_its_snapshot(host: Host, monkeypatch: pytest.MonkeyPatch, lost: Home | None = None) -> Instance:
    """Return a VM whose VMM was stopped between the pause and the snapshot, once the alarm is raised.

    With a home it has lost its socket there before.
    """
    source = await host.create(CreateRequest(name="source", image="pagewalker", cmd=("passes=0", "hot_mib=4")))
    pid = source.vmm_pid
    assert pid is not None
    await host.queries.wait("source", State.RUNNING, PATIENCE)
    if lost is not None:
        lose_socket(lost, source)
    monkeypatch.setattr(vmms, "step", lambda name: os.kill(pid, signal.SIGSTOP) if name == "snapshot" else None)
    async with host.events.subscribe() as events, asyncio.timeout(PATIENCE):
        with pytest.raises(VmmError, match="did not answer PUT /snapshot/create"):
            await host.checkpoint("source", CheckpointRequest(name="never"))
        message = ""
        while "it may be paused until it does" not in message:
            _, event = await anext(events)
            message = event.message if isinstance(event, Activity) and event.level == "alarm" else ""
    return source


@LOST
async def test_it_runs_on_once_its_vmm_answers(
    host: Host, home: Home, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    source = await silent_at_its_snapshot(host, monkeypatch, home if lost else None)
    assert source.vmm_pid is not None
    console = host.queries.log_file("source", "app")
    passes = (await asyncio.to_thread(console.read_text)).count("pass ")
    os.kill(source.vmm_pid, signal.SIGCONT)
    await until_console_says(console, f"pass {passes + 3}")
    monkeypatch.undo()
    whole = await host.checkpoint("source", CheckpointRequest(name="whole"))
    assert whole.layers == 1
    assert [one.name for one in host.queries.instances()] == ["source", "whole"]


@LOST
async def test_one_whose_snapshot_was_cancelled_runs_on_as_well(
    host: Host, home: Home, monkeypatch: pytest.MonkeyPatch, lost: bool
) -> None:
    monkeypatch.setattr(api_client, "SNAPSHOT", PATIENCE)
    source = await host.create(CreateRequest(name="source", image="pagewalker", cmd=("passes=0", "hot_mib=4")))
    pid, silent = source.vmm_pid, asyncio.Event()
    assert pid is not None
    await host.queries.wait("source", State.RUNNING, PATIENCE)
    if lost:
        lose_socket(home, source)

    def step(name: str) -> None:
        if name == "snapshot":
            os.kill(pid, signal.SIGSTOP)
            silent.set()

    monkeypatch.setattr(vmms, "step", step)
    standby = asyncio.create_task(host.standby("source"))
    await silent.wait()
    [operation] = host.operations()
    async with host.events.subscribe() as events, asyncio.timeout(PATIENCE):
        assert (await host.cancel(operation.id)).outcome == "cancelled"
        with pytest.raises(OperationCancelledError):
            await standby
        message = ""
        while "it may be paused until it does" not in message:
            _, event = await anext(events)
            message = event.message if isinstance(event, Activity) and event.level == "alarm" else ""
    console = host.queries.log_file("source", "app")
    passes = (await asyncio.to_thread(console.read_text)).count("pass ")
    os.kill(pid, signal.SIGCONT)
    await until_console_says(console, f"pass {passes + 3}")
    monkeypatch.undo()
    assert (await host.standby("source")).state == "Standby"


async def test_one_that_is_silent_as_its_socket_goes_is_reached_once_it_answers(
    host: Host, home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_client, "QUICK", 0.5)
    source = await host.create(CreateRequest(name="source", image="pagewalker", cmd=("passes=0", "hot_mib=4")))
    assert source.vmm_pid is not None
    await host.queries.wait("source", State.RUNNING, PATIENCE)
    os.kill(source.vmm_pid, signal.SIGSTOP)
    lose_socket(home, source)
    for _ in range(2):
        await host.put_back_run_files()
        # The socket in a jail is held, and nothing is lost with its name.
        told = host.queries.instance("source").state_error or ""
        assert ("still reaches it" in told) is (jail_uid(home, source.id) is None)
    os.kill(source.vmm_pid, signal.SIGCONT)
    monkeypatch.undo()
    assert (await host.standby("source")).state == "Standby"


async def test_it_can_be_deleted_while_its_vmm_is_silent(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    await silent_at_its_snapshot(host, monkeypatch)
    async with asyncio.timeout(PATIENCE):
        await host.delete("source")
    assert host.queries.instances() == []
