"""What whoever looks on is told: who died, what was refused to somebody else, what of the memory is not as it was."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from forktui.client.api import SupervisorClient
from supervisor.host.refusals import AGAIN_SECONDS, Refusals
from supervisor.models import (
    Activity,
    CreateRequest,
    ErrorBody,
    FanOutRequest,
    ForkRequest,
    HostSnapshot,
    Instance,
    State,
)
from tests.harness.refusals import refused
from tests.harness.supervisor_process import PATIENCE, Home, supervisor, until
from tests.harness.verified_guests import standby_source

NEW = CreateRequest(name="vm", image="pagewalker", cmd=("hot_mib=1",), size="64MB")


def vm(host: HostSnapshot) -> Instance:
    return next(one for one in host.instances if one.name == "vm")


class Onlooker:
    """A client that hears what happens, and may wait for it."""

    def __init__(self) -> None:
        self.heard: list[Activity] = []
        self._more = asyncio.Event()

    async def listen(self, home: Home, began: asyncio.Event) -> None:
        async with SupervisorClient(home.socket) as client:
            async for _, event in client.events():
                began.set()
                if isinstance(event, Activity):
                    self.heard.append(event)
                    self._more.set()

    async def until(self, condition: Callable[[Activity], bool]) -> Activity:
        async with asyncio.timeout(PATIENCE):
            while not (found := [one for one in self.heard if condition(one)]):
                await self._more.wait()
                self._more.clear()
        return found[0]


@contextlib.asynccontextmanager
async def onlooker(home: Home) -> AsyncIterator[Onlooker]:
    one, began = Onlooker(), asyncio.Event()
    task = asyncio.create_task(one.listen(home, began))
    try:
        await began.wait()
        yield one
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_vm_that_died_is_told_from_one_that_was_stopped_until_it_runs_again(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        pid = (await client.create(NEW)).vmm_pid
        assert pid is not None
        async with onlooker(home) as looks_on:
            os.kill(pid, signal.SIGKILL)
            assert vm(await until(lambda host: vm(host).state is State.STOPPED, client)).died
            told = await looks_on.until(lambda one: one.level == "alarm")
            assert (told.message, told.shown) == ("vm: its VMM ended: killed by SIGKILL", True)
        assert not (await client.start("vm")).died
        assert not (await client.stop("vm")).died
        pid = (await client.start("vm")).vmm_pid
        await running.end(signal.SIGKILL)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
    async with supervisor(home) as running:
        found = vm(await running.client.snapshot())
        assert (found.died, found.exit_message) == (True, "ended while no supervisor ran")
        await running.client.delete("vm")


async def test_a_page_servers_death_is_told_by_the_name_that_is_on_the_screen(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client)
        await client.fork(source.id, ForkRequest(name="fork", share_memory=True, target_state="Running"))
        (template,) = (await until(lambda host: bool(host.templates), client)).templates
        assert template.page_server_pid is not None
        async with onlooker(embedded) as looks_on:
            os.kill(template.page_server_pid, signal.SIGKILL)
            died = await looks_on.until(lambda one: one.level == "alarm")
            await looks_on.until(lambda one: "took over 1 fork" in one.message)
        whose = f"the page server (pid {template.page_server_pid}) of source died, and has left 1 running fork"
        assert (died.message, died.shown, died.instance_id) == (whose, True, source.id)
        assert not any(template.id in one.message for one in looks_on.heard)
        await client.delete("source", cascade=True)


async def test_a_fan_out_that_was_refused_to_one_is_told_to_others_once(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client)
        async with onlooker(embedded) as looks_on:
            for _ in range(3):
                error = await refused(client.fan_out("source", FanOutRequest(count=4096)))
            told = await looks_on.until(lambda one: one.code == error.code)
        assert (told.level, told.code, told.instance_id) == ("warning", "insufficient_resources", source.id)
        assert [detail.remedy for detail in told.details] == [detail.remedy for detail in error.details]
        assert told.message.split(",")[0] == error.message.split(",")[0]
        assert sum(one.code == error.code for one in looks_on.heard) == 1
        await client.delete("source")


@pytest.mark.parametrize("many", [False, True], ids=["fork", "fan-out"])
async def test_a_layer_that_changed_is_an_alarm_of_its_instance(embedded: Home, many: bool) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client)
        (layer,) = (embedded.data / "instances" / source.id).glob("mem.*")
        damage(layer)
        async with onlooker(embedded) as looks_on:
            if many:
                with contextlib.suppress(Exception):
                    await client.fan_out("source", FanOutRequest(count=2))
            else:
                await refused(client.fork("source", ForkRequest(name="one", target_state="Running")))
            told = await looks_on.until(lambda one: one.code == "layer_changed")
        assert (told.level, told.instance_id) == ("alarm", source.id)
        assert str(layer.name) in told.message
        await client.delete("source", cascade=True)


def damage(layer: Path) -> None:
    os.utime(layer, ns=(1, 1))


async def test_how_much_the_disk_has_is_told_with_the_memory(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        host = (await until(lambda host: host.host.memory_total_bytes > 0, running.client)).host
        assert 0 < host.disk_available_bytes < host.disk_total_bytes
        assert (await running.client.snapshot()).at is not None


def test_a_refusal_is_told_again_after_a_while_and_others_at_once() -> None:
    told: list[tuple[str, str | None]] = []
    now = [0.0]
    refusals = Refusals(lambda level, message, instance_id, /, **_: told.append((message, instance_id)), lambda: now[0])
    for at, code, instance_id in (
        (0.0, "insufficient_resources", "a"),
        (1.0, "insufficient_resources", "a"),
        (1.0, "insufficient_resources", "b"),
        (2.0, "layer_changed", "a"),
        (2.0, "invalid_state", "a"),
        (AGAIN_SECONDS, "insufficient_resources", "a"),
    ):
        now[0] = at
        refusals.tell(ErrorBody(code=code, message=f"{at:g}"), instance_id)
    assert told == [("0", "a"), ("1", "b"), ("2", "a"), (f"{AGAIN_SECONDS:g}", "a")]
