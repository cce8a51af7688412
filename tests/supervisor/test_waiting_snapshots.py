"""A fork whose snapshot waits for a page as it is written: nobody who is to serve that page may wait for the file."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from forktui.client.api import ApiError, SupervisorUnreachableError
from supervisor.models import CreateRequest, FanOutRequest, Instance, State
from supervisor.store.layout import PARTIAL
from tests.harness.jails import jail_root
from tests.harness.supervisor_process import Home, RunningSupervisor, find, supervisor, until, until_walking
from tests.harness.verified_guests import two_more_passes
from tests.harness.waiting import until as until_true


@dataclass(frozen=True)
class Waiting:
    """A fork in the middle of its standby, whose VMM writes memory that its page server does not give."""

    running: RunningSupervisor
    fork: Instance
    page_server: psutil.Process
    standby: "asyncio.Task[Instance]"


def half_written(home: Home, fork: Instance) -> list[Path]:
    """Return the layers that a VMM has begun to write."""
    places = (home.data / "instances" / fork.id, jail_root(home, fork.id))
    return [path for place in places for path in place.glob(f"mem.*{PARTIAL}")]


@contextlib.asynccontextmanager
async def waiting(home: Home) -> AsyncIterator[Waiting]:
    """Have such a fork, whose page server nothing can replace; with the context its supervisor and that are killed."""
    async with supervisor(home) as running:
        client = running.client
        # All of its memory is written without the tracking, and of most of it nothing is present.
        words = ("passes=0", "hot_mib=4")
        await client.create(CreateRequest(name="source", image="pagewalker", cmd=words, track_dirty_pages=False))
        await until_walking(client, "source")
        await client.standby("source")
        made = await client.fan_out("source", FanOutRequest(count=1, prefetch="off", record="off"))
        fork = made.children[0].instance
        assert fork is not None
        await two_more_passes(client, fork.name)
        (template,) = (await client.snapshot()).templates
        page_server = psutil.Process(template.page_server_pid)
        (layer,) = (home.data / "templates" / template.id).glob("mem.*")
        layer.rename(home.root / layer.name)
        page_server.send_signal(signal.SIGSTOP)
        standby = asyncio.create_task(client.standby(fork.id))
        await until_true(lambda: bool(half_written(home, fork)))
        yield Waiting(running, fork, page_server, standby)
        await running.end(signal.SIGKILL)
        with contextlib.suppress(psutil.NoSuchProcess):
            page_server.kill()
        (home.root / layer.name).rename(layer)
        with contextlib.suppress(ApiError, SupervisorUnreachableError):
            await standby


async def goes_on(home: Home, fork: Instance) -> None:
    """Have another supervisor, by which the fork goes on and can be put to standby."""
    async with supervisor(home) as running:
        client = running.client
        one = find(await client.snapshot(), fork.name)
        assert one is not None
        assert one.state is State.RUNNING
        await two_more_passes(client, fork.name)
        await until_true(lambda: half_written(home, fork) == [])
        await client.standby(fork.id)
        await client.restore(fork.id)
        await two_more_passes(client, fork.name)
        await client.delete("source", cascade=True)
    assert home.processes() == []


async def test_killed_with_the_page_server_it_is_followed_by_one_that_serves(home: Home) -> None:
    async with waiting(home) as story:
        pass
    await goes_on(home, story.fork)


async def test_cancelled_it_keeps_neither_its_verb_nor_the_supervisor_from_their_end(home: Home) -> None:
    async with waiting(home) as story:
        client = story.running.client
        (operation,) = await client.operations()
        await client.cancel(operation.id)
        # Its VMM has not answered, and is asked again and again to let it go on.
        await until(
            lambda host: any(one.operation and one.operation.verb == "unpause" for one in host.instances), client
        )
        assert half_written(home, story.fork), "what a VMM may be writing is let be"
    await goes_on(home, story.fork)
