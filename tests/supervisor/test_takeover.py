"""Page servers killed, stopped and lost with their supervisor: guests go on, and every byte is what it was."""

import asyncio
import json
import os
import random
import select
import signal
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from forktui.client.api import SupervisorClient
from supervisor.guests.pagewalker import HOT_BASE, MIB, PAGE_SIZE
from supervisor.models import Activity, FanOutRequest, ForkRequest, Instance, Template, TemplateChanged
from supervisor.uffd.page_map import PageMapReader
from tests.harness.supervisor_process import PATIENCE, Home, guest, supervisor, until
from tests.harness.verified_guests import standby_source, two_more_passes

ENDLESS = "passes=0"
STORMS = int(os.environ.get("FORKTUI_TEST_STORMS", "4"))
"""How often the page server is killed in a storm; the whole story takes a hundred."""
STORM_FORKS = int(os.environ.get("FORKTUI_TEST_STORM_FORKS", "4"))
"""How many new forks are in each storm, beside one that is in all of them."""
STORM_MIB = 8
LOOK_AGAIN = 1
"""Milliseconds between two looks at the page maps: no event of the kernel tells of stores to a mapped file."""


async def template_of(client: SupervisorClient) -> Template:
    (template,) = (await until(lambda host: len(host.templates) == 1, client)).templates
    return template


def kill_in_a_storm(server: psutil.Process, maps: Path, before: frozenset[str], pages: int) -> list[int]:
    """Kill the page server once so many pages are in forks that were not there before; returns what each has then."""
    pidfd = os.pidfd_open(server.pid)
    ended = select.poll()
    ended.register(pidfd)
    found: dict[str, PageMapReader] = {}
    try:
        while not ended.poll(LOOK_AGAIN):
            for path in maps.glob("*.map"):
                if path.name not in before and path.name not in found:
                    found[path.name] = PageMapReader(path)
            present = [reader.counters().present_pages for reader in found.values()]
            if sum(present) >= pages:
                server.kill()
                return present
    finally:
        os.close(pidfd)
        for reader in found.values():
            reader.close()
    raise AssertionError(f"the page server died by itself, with {pages} pages still to come")


async def served_again(client: SupervisorClient, restarts: int) -> Template:
    """Return the template once its page server was replaced so often and runs."""
    host = await until(
        lambda host: any(t.page_server_restarts >= restarts and t.page_server_pid for t in host.templates), client
    )
    return host.templates[0]


async def kill_while_busy(client: SupervisorClient, pid: int) -> None:
    """Kill the page server as soon as a fork is on its way to Running."""
    await until(lambda host: any(one.busy == "fork" and one.source_id for one in host.instances), client)
    psutil.Process(pid).kill()


async def alarms_until_replaced(client: SupervisorClient) -> AsyncIterator[Activity]:
    """Yield every alarm until the page server was replaced."""
    async with asyncio.timeout(PATIENCE), aclosing(client.events()) as events:
        async for _, event in events:
            if isinstance(event, Activity) and event.level == "alarm":
                yield event
            if isinstance(event, TemplateChanged) and event.template.page_server_restarts:
                return


async def ride_out_a_storm(home: Home, client: SupervisorClient, source: Instance, storm: int, pages: int) -> list[int]:
    """Make forks, kill the page server when they have so many pages, see all walk on; returns the pages of each."""
    template = await template_of(client)
    assert template.page_server_pid is not None
    before = frozenset(path.name for path in (home.run / "pages").glob("*.map"))
    killing = asyncio.to_thread(
        kill_in_a_storm, psutil.Process(template.page_server_pid), home.run / "pages", before, pages
    )
    request = FanOutRequest(
        count=STORM_FORKS, concurrency=STORM_FORKS, name_prefix=f"storm-{storm}", prefetch="off", record="off"
    )
    result, present = await asyncio.gather(client.fan_out(source.id, request), killing)
    assert [child.error for child in result.children] == [None] * STORM_FORKS
    await served_again(client, storm + 1)
    names = [child.name for child in result.children]
    await two_more_passes(client, "first", *names)
    for name in names:
        await client.delete(name)
    return present


async def test_a_page_server_killed_in_a_storm_is_replaced_and_no_guest_sees_a_wrong_byte(home: Home) -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    # Small windows make the storm long; large ones have more pages that were there before the map said so.
    window = chance.choice((1, 4, 64))
    print(f"seed {seed}, fault-around {window}")
    home.options = ("--fault-around-pages", str(window))
    hot = STORM_FORKS * STORM_MIB * MIB // PAGE_SIZE
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client, "source", ENDLESS, f"hot_mib={STORM_MIB}")
        await client.fork(source.id, ForkRequest(name="first", share_memory=True, prefetch="off", record="off"))
        await client.restore("first")
        for storm in range(STORMS):
            present = await ride_out_a_storm(home, client, source, storm, chance.randrange(hot))
            print(f"storm {storm}: killed with {sum(present)} of {hot} pages there, by fork {present}")
        assert (await template_of(client)).page_server_restarts == STORMS
        await client.delete("first")
        await client.delete("source")
    assert home.processes() == []


async def test_a_page_server_killed_while_forks_are_made_costs_no_fork(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client, "source", ENDLESS, "hot_mib=8")
        await client.fork(source.id, ForkRequest(name="warm", share_memory=True, target_state="Running"))
        template = await template_of(client)
        assert template.page_server_pid is not None
        result, _ = await asyncio.gather(
            client.fan_out(source.id, FanOutRequest(count=6, concurrency=6)),
            kill_while_busy(client, template.page_server_pid),
        )
        assert [child.error for child in result.children] == [None] * 6
        await two_more_passes(client, "warm", *(child.name for child in result.children))
        for name in ["warm", *(child.name for child in result.children), "source"]:
            await client.delete(name)


async def test_a_page_server_that_hangs_is_noticed_and_replaced(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client, "source", ENDLESS, "hot_mib=8")
        await client.fork(source.id, ForkRequest(name="fork", share_memory=True, prefetch="off", record="off"))
        await client.restore("fork")
        template = await template_of(client)
        assert template.page_server_pid is not None
        os.kill(template.page_server_pid, signal.SIGSTOP)
        alarms = [event async for event in alarms_until_replaced(client)]
        assert any("has not answered" in alarm.message for alarm in alarms)
        await two_more_passes(client, "fork")
        for name in ("fork", "source"):
            await client.delete(name)


async def test_supervisor_and_page_server_killed_together_lose_nothing(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client, "source", ENDLESS, "hot_mib=8")
        result = await client.fan_out(source.id, FanOutRequest(count=3, prefetch="off", record="off"))
        names = [child.name for child in result.children]
        template = await template_of(client)
        assert template.page_server_pid is not None
        before = await until(lambda host: True, client)
        running.process.send_signal(signal.SIGKILL)
        psutil.Process(template.page_server_pid).kill()
        await running.end(signal.SIGKILL)
    async with supervisor(home) as running:
        client = running.client
        after = await until(lambda host: True, client)
        assert [(one.name, one.state, one.fork_count) for one in after.instances] == [
            (one.name, one.state, one.fork_count) for one in before.instances
        ]
        await served_again(client, 1)
        await two_more_passes(client, *names)
        for name in (*names, "source"):
            await client.delete(name)
    assert home.processes() == []


async def test_a_page_server_that_dies_again_and_again_is_started_with_a_growing_delay(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client, "source", ENDLESS, "hot_mib=4")
        await client.fork(source.id, ForkRequest(name="fork", share_memory=True, prefetch="off", record="off"))
        await client.restore("fork")
        for death in range(1, 6):
            template = await template_of(client)
            pid = template.page_server_pid
            assert pid is not None
            psutil.Process(pid).kill()
            await served_again(client, death)
        log = running.log.read_text()
        assert "the next starts in 0.2 s" in log
        assert "the next starts in 0.4 s" in log
        await two_more_passes(client, "fork")
        for name in ("fork", "source"):
            await client.delete(name)


@dataclass
class Layer:
    """The layer of a source whose hot set has 64 MiB, of which a test takes the last quarter: a walk's last part."""

    path: Path
    whole: os.stat_result
    rest: bytes

    KEPT = HOT_BASE + 48 * MIB

    @classmethod
    def of(cls, home: Home, source: Instance) -> "Layer":
        path = next((home.data / "instances" / source.id).glob("mem.*"))
        path.chmod(0o600)
        with path.open("rb") as file:
            file.seek(cls.KEPT)
            return cls(path, path.stat(), file.read())

    def cut(self) -> None:
        os.truncate(self.path, self.KEPT)

    def mend(self) -> None:
        with self.path.open("r+b") as file:
            file.seek(self.KEPT)
            file.write(self.rest)
        # A layer that was written is never trusted again; this one is what it was in all that identifies it.
        os.utime(self.path, ns=(self.whole.st_atime_ns, self.whole.st_mtime_ns))


async def test_page_servers_that_fail_at_their_start_are_tried_with_a_growing_delay_until_one_serves(
    home: Home,
) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client, "source", ENDLESS, "hot_mib=64")
        layer = Layer.of(home, source)
        backs_off = await listening_for(client, "the next starts in 0.4 s")
        options = ForkRequest(name="fork", share_memory=True, target_state="Running", prefetch="off", record="off")
        await client.fork(source.id, options)
        layer.cut()
        template = await template_of(client)
        assert template.page_server_pid is not None
        psutil.Process(template.page_server_pid).kill()
        seen = await backs_off
        assert any("was truncated from" in one.message for one in seen)
        assert [one.level for one in seen if "the next starts in" in one.message] == ["alarm"] * 2
        # Its guest has come as far as there were pages: it waits, and has run on over nothing.
        waiting = guest(await until(lambda host: True, client), "fork")
        assert (waiting.passes, waiting.corrupt) == (0, None)
        layer.mend()
        await served_again(client, 1)
        await two_more_passes(client, "fork")
        for name in ("fork", "source"):
            await client.delete(name)


async def test_a_guest_whose_layer_is_cut_waits_with_an_alarm_and_goes_on_when_it_is_whole_again(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client, "source", ENDLESS, "hot_mib=64")
        layer = Layer.of(home, source)
        alarms = await listening_for(client, "has waited")
        options = ForkRequest(name="fork", share_memory=True, target_state="Running", prefetch="off", record="off")
        await client.fork(source.id, options)
        layer.cut()
        seen = await alarms
        assert any("cannot provide a page" in one.message for one in seen)
        assert {one.level for one in seen} >= {"alarm"}
        goes_on = await listening_for(client, "goes on")
        layer.mend()
        await goes_on
        await two_more_passes(client, "fork")
        for name in ("fork", "source"):
            await client.delete(name)


async def listening_for(client: SupervisorClient, words: str) -> asyncio.Task[list[Activity]]:
    """Return, once it listens, a task that has what the host reports up to the first line with these words."""
    listens = asyncio.Event()
    task = asyncio.create_task(activity(client, words, listens))
    await listens.wait()
    return task


async def activity(client: SupervisorClient, words: str, listens: asyncio.Event) -> list[Activity]:
    seen = []
    async with asyncio.timeout(PATIENCE), aclosing(client.events()) as events:
        async for _, event in events:
            listens.set()
            if isinstance(event, Activity):
                seen.append(event)
                if words in event.message:
                    return seen
    raise AssertionError(f"nothing was reported of {words!r}: {seen}")


@pytest.mark.parametrize("page_server", ["stopped", "dead"])
async def test_a_new_supervisor_replaces_a_page_server_that_does_not_answer(embedded: Home, page_server: str) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client, "source", ENDLESS, "hot_mib=4")
        options = ForkRequest(name="fork", share_memory=True, target_state="Running", prefetch="off", record="off")
        await client.fork(source.id, options)
        pid = (await template_of(client)).page_server_pid
        assert pid is not None
        await running.end(signal.SIGKILL)
    psutil.Process(pid).send_signal(signal.SIGSTOP if page_server == "stopped" else signal.SIGKILL)
    record = next((embedded.data / "templates").glob("*/template.json"))
    if page_server == "dead":
        # As it is when the supervisor has noted the death and ended before the next one was up.
        told = json.loads(record.read_text())
        record.write_text(json.dumps(told | {"page_server": None}))
    async with supervisor(embedded) as running:
        await served_again(running.client, 1)
        await two_more_passes(running.client, "fork")
        for name in ("fork", "source"):
            await running.client.delete(name)
    assert embedded.processes() == []


async def test_a_fork_that_could_not_be_handed_over_is_tried_again(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        source = await standby_source(client, "source", ENDLESS, "hot_mib=4")
        options = ForkRequest(name="fork", share_memory=True, target_state="Running", prefetch="off", record="off")
        fork = await client.fork(source.id, options)
        pages = embedded.run / "pages"
        pid = (await template_of(client)).page_server_pid
        assert pid is not None
        listens = asyncio.Event()
        failed = asyncio.create_task(activity(client, "its page faults are not answered", listens))
        await listens.wait()
        away = pages.rename(embedded.run / "away")
        pages.write_text("in the way")
        psutil.Process(pid).kill()
        await failed
        assert "page faults are not answered" in ((await client.instance("fork")).state_error or "")
        pages.unlink()
        away.rename(pages)
        assert (pages / f"{fork.id}.map").exists()
        await until(lambda host: host.instances[-1].state_error is None, client)
        await two_more_passes(client, "fork")
        for name in ("fork", "source"):
            await client.delete(name)
    assert embedded.processes() == []
