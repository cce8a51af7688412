"""A new instance is its maker's until it is what it was to become: nobody gets between its making and its first run."""

import asyncio
from collections.abc import Awaitable
from contextlib import aclosing

import pytest

from forktui.client.api import SupervisorClient
from supervisor.models import CreateRequest, FanOutRequest, ForkRequest, Instance, InstanceChanged, Reset
from tests.harness.supervisor_process import PATIENCE, Home, supervisor, walking_source

SMALL = ("hot_mib=1", "passes=2")


async def history(client: SupervisorClient, name: str, work: Awaitable[object]) -> list[Instance]:
    """Return every state of one instance that was told while `work` was done, once it is held by nobody."""
    told: list[Instance] = []
    working: asyncio.Future[object] | None = None
    async with asyncio.timeout(PATIENCE), aclosing(client.events()) as events:
        async for _, event in events:
            if isinstance(event, Reset):
                working = asyncio.ensure_future(work)
            elif isinstance(event, InstanceChanged) and event.instance.name == name:
                told.append(event.instance)
                if event.instance.busy is None and event.instance.vmm_pid is not None:
                    break
    assert working is not None
    await working
    return told


def made(client: SupervisorClient, way: str) -> Awaitable[object]:
    match way:
        case "create":
            return client.create(CreateRequest(name="new-1", image="pagewalker", cmd=SMALL))
        case "fork":
            return client.fork("source", ForkRequest(name="new-1", share_memory=True, target_state="Running"))
        case "fork_from_running":
            return client.fork("source", ForkRequest(name="new-1", from_running=True, target_state="Running"))
    return client.fan_out("source", FanOutRequest(count=1, name_prefix="new"))


@pytest.mark.parametrize("way", ["create", "fork", "fork_from_running", "fan_out"])
async def test_a_new_instance_is_held_from_before_it_can_be_seen_until_it_runs(embedded: Home, way: str) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client, "source", *SMALL)
        if way in ("fork", "fan_out"):
            await client.standby("source")
        told = await history(client, "new-1", made(client, way))
        *before, after = told
        assert before, "it is seen while it is made"
        assert [one.state for one in before if one.busy is None] == []
        assert after.busy is None
        await client.delete("source", cascade=True)
        for one in await client.instances():
            await client.delete(one.id)
