"""From the SIGKILL of a page server in a fault storm to the first fault that another one answers."""

import asyncio
import contextlib
import os
import signal
import time
from typing import Final

from benchmarks.bench import PATIENCE, Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from benchmarks.supervised import children_of, delete_all, standby_source, supervised
from forktui.client.api import SupervisorClient
from supervisor.models import FanOutRequest, Reset
from supervisor.settings import Settings
from supervisor.uffd.page_map import PageMapReader

NAME: Final = "takeover"
STORM = "SIGKILL in a storm"
FIRST, EVERY = "first fault ms", "every fork's ms"
LIMIT_MS: Final = 250.0
SOURCE: Final = "source"
ROUNDS: Final = 7
"""At most: a round boots a source of its own, since a page server that dies again and again is started with delays."""
LOOK_SECONDS: Final = 0.0005
"""Between two looks at the counters, which nobody announces: how exact the times are."""


async def measure(bench: Bench) -> Result:
    """Measure, on the embedded VMM where Firecracker cannot run."""
    hypervisor = bench.any_hypervisor()
    # One page a fault: the storm has to last until it is over for the page server.
    async with supervised(bench, hypervisor, fault_around_pages=1) as (client, settings):

        async def sample(mode: str) -> Sample:
            return await _kill(bench, client, settings)

        rounds = await Rounds.take(min(bench.rounds, ROUNDS), (STORM,), sample)
    return Result(
        NAME,
        f"{bench.sizes.family} forks that fault on {bench.sizes.storm_mib} MiB each, one page a fault; "
        f"{hypervisor.name} {hypervisor.version}",
        rounds.rows((STORM,)),
        (Bar(FIRST, rounds.spread(STORM, FIRST), "at most", LIMIT_MS),),
    )


async def _kill(bench: Bench, client: SupervisorClient, settings: Settings) -> Sample:
    words = ("passes=0", f"hot_mib={bench.sizes.storm_mib}")
    await standby_source(bench, client, SOURCE, "ready", *words)
    request = FanOutRequest(count=bench.sizes.family, prefetch="off", record="off")
    forks = children_of(await client.fan_out(SOURCE, request))
    with contextlib.ExitStack() as stack:
        maps = [stack.enter_context(PageMapReader(settings.run_dir / "pages" / f"{fork.id}.map")) for fork in forks]
        pid = await _page_server(client)
        pidfd = os.pidfd_open(pid)
        stack.callback(os.close, pidfd)
        began = time.perf_counter()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await _ended(pidfd)
        # One that had walked all of it needs nothing any more.
        walk = bench.sizes.storm_mib << 20
        before = [(pages, faults) for pages in maps if (faults := pages.counters().faults) * pages.page_size < walk]
        if not before:
            raise RuntimeError("the storm was over before its page server was killed")
        first = every = None
        async with asyncio.timeout(PATIENCE):
            while every is None:
                served = [pages.counters().faults > faults for pages, faults in before]
                took = (time.perf_counter() - began) * 1e3
                first = took if first is None and any(served) else first
                every = took if all(served) else None
                await asyncio.sleep(LOOK_SECONDS)
    await delete_all(client)
    assert first is not None
    return {FIRST: first, EVERY: every}


async def _page_server(client: SupervisorClient) -> int:
    """Return the pid of the only page server."""
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(client.events()) as events:
        async for _, event in events:
            if isinstance(event, Reset) and (pid := event.snapshot.templates[0].page_server_pid) is not None:
                return pid
    raise RuntimeError("the supervisor told of no page server")


async def _ended(pidfd: int) -> None:
    """Return when the process has ended."""
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    try:
        await asyncio.wait_for(ended.wait(), PATIENCE)
    finally:
        loop.remove_reader(pidfd)
