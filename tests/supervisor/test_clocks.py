"""A wall clock that somebody sets: ages and orders are the same as before, and only what is read as a time differs."""

import json
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest

from forktui.client.api import SupervisorClient
from supervisor.models import FanOutRequest, ForkRequest
from supervisor.system.processes import age_of, boot_seconds, start_time_of
from tests.harness.supervisor_process import Home, supervisor, walking_source
from tests.harness.verified_guests import standby_source
from tests.harness.wall_clock import WallClock


@pytest.fixture
def clock(embedded: Home) -> WallClock:
    """The clock of the embedded home's supervisors."""
    return WallClock(embedded)


@pytest.mark.parametrize("hours", [2, -2, -9000])
async def test_young_forks_are_young_whatever_the_wall_clock_says(
    embedded: Home, clock: WallClock, hours: float
) -> None:
    """Forks that have run for a moment are no measure of what they will have, before the clock is set and after."""
    embedded.options = ("--fault-around-pages", "1")
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client, "source", "hot_mib=32")
        made = await client.fan_out("source", FanOutRequest(count=2, prefetch="off", target_state="Running"))
        vmms = [psutil.Process(child.instance.vmm_pid) for child in made.children if child.instance is not None]
        for vmm in vmms:
            vmm.suspend()
        assert "what 2 running forks are to have: all that its memory image" in await _memory_basis(client)
        clock.set(hours)
        assert "what 2 running forks are to have: all that its memory image" in await _memory_basis(client)
        asleep = await client.fork("source", ForkRequest(name="asleep", share_memory=True))
        assert abs(asleep.created_at - datetime.now(UTC) - timedelta(hours=hours)) < timedelta(minutes=5)
        await client.delete("source", cascade=True)


async def _memory_basis(client: SupervisorClient) -> str:
    estimate = await client.fan_out_estimate("source", FanOutRequest(count=1))
    return next(row.basis for row in estimate.resources if row.name == "memory")


async def test_a_fork_is_listed_after_its_source_though_the_clock_was_set_back_before_it_was_made(
    embedded: Home, clock: WallClock
) -> None:
    names = ["source", "fork", "copy", "last"]
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client)
        clock.set(-2)
        await client.fork("source", ForkRequest(name="fork", share_memory=True))
        clock.set(-4)
        await client.fork("source", ForkRequest(name="copy", target_state="Stopped"))
        clock.set(2)
        await client.fork("source", ForkRequest(name="last", share_memory=True))
        made = await client.instances()
        assert [one.name for one in made] == names
        assert [one.number for one in made] == [1, 2, 3, 4]
    clock.set(-9)
    async with supervisor(embedded) as running:
        client = running.client
        assert [one.name for one in await client.instances()] == names
        assert (await client.fork("source", ForkRequest(name="next", share_memory=True))).number == 5
    async with supervisor(embedded) as running:
        assert [one.name for one in await running.client.instances()] == [*names, "next"]
        await running.client.delete("source", cascade=True)


async def test_records_of_an_earlier_version_are_in_the_order_of_their_times_with_sources_first(
    embedded: Home,
) -> None:
    times = {"source": "2031-01-01T00:00:00Z", "early": "1970-01-01T00:00:00Z", "fork": "2020-01-01T00:00:00Z"}
    async with supervisor(embedded) as running:
        client = running.client
        await standby_source(client)
        await client.fork("source", ForkRequest(name="fork", share_memory=True))
        await walking_source(client, "early")
        await client.stop("early")
    for path in embedded.data.glob("instances/*/instance.json"):
        _rewrite(path, times)
    async with supervisor(embedded) as running:
        client = running.client
        assert [one.name for one in await client.instances()] == ["early", "source", "fork"]
        assert [one.number for one in await client.instances()] == [1, 2, 3]
        assert (await client.fork("source", ForkRequest(name="next", share_memory=True))).number == 4
    async with supervisor(embedded) as running:
        assert [one.name for one in await running.client.instances()] == ["early", "source", "fork", "next"]
        await running.client.delete("source", cascade=True)
        await running.client.delete("early")


def _rewrite(path: Path, times: dict[str, str]) -> None:
    fields = json.loads(path.read_text())
    fields["created_at"] = times[fields["name"]]
    fields.pop("number", None)
    path.write_text(json.dumps(fields))


async def test_statistics_go_on_in_the_boot_clock_when_the_wall_clock_is_set(embedded: Home, clock: WallClock) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await walking_source(client)
        seen = []
        async for _, event in client.events():
            if event.type == "statistics":
                seen.append(event)
                clock.set(-2 * len(seen))
            if len(seen) == 3:
                break
        assert seen[0].at > seen[1].at > seen[2].at
        assert seen[0].clock < seen[1].clock < seen[2].clock < seen[0].clock + 30
        await client.delete("source")


def test_a_process_is_as_old_as_the_boot_clock_says() -> None:
    before = boot_seconds()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        started = start_time_of(process.pid)
        # Start times are told in ticks of 10 ms.
        assert 0 <= age_of(started) <= boot_seconds() - before + 0.02
        assert age_of(start_time_of(1)) > age_of(started)
        assert age_of(started + 10**6) == 0
