"""A fork whose VMM is in a jail, against one whose VMM is in none: alone, and in a burst."""

import asyncio
from typing import Final

from benchmarks.bench import Bench
from benchmarks.measurement import Bar, Result, Rounds, Row, Sample, Skipped
from benchmarks.supervised import CONCURRENCY, children_of, delete, standby_source, supervised
from forktui.client.api import SupervisorClient
from supervisor.models import FanOutRequest, ForkRequest, JailMode

NAME: Final = "jails"
OFF, JAILED = "off", "jailed"
MODES: Final[dict[str, JailMode]] = {OFF: "off", JAILED: "auto"}
ALONE, SPAWN, BURST, DELETED = "alone ms", "spawn ms", "burst ms", "deleted ms"
SOURCE: Final = "source"
HOT_MIB: Final = 1
"""Little for the guests to do: what they do is not measured, and takes time from what is."""
ROUNDS_IN_A_BURST: Final = 3
"""A burst is measured in one round of so many."""
MOST: Final = 1.3


async def measure(bench: Bench) -> Result:
    """Measure; Skipped where Firecracker cannot run, or in no jail."""
    hypervisor = bench.real_firecracker()
    async with (
        supervised(bench, hypervisor) as (off, _),
        supervised(bench, hypervisor, jail=MODES[JAILED]) as (jailed, _),
    ):
        clients = {OFF: off, JAILED: jailed}
        jails = (await jailed.snapshot()).supervisor.jails
        if jails is None or not jails.jailed:
            raise Skipped(f"no VMM can be jailed here: {jails.problem if jails else 'unknown'}")
        for client in clients.values():
            await standby_source(bench, client, SOURCE, "done", f"hot_mib={HOT_MIB}", "passes=2")

        async def alone(mode: str) -> Sample:
            return await _fork(clients[mode])

        async def burst(mode: str) -> Sample:
            return await _fan_out(clients[mode], bench.sizes.burst)

        one = await Rounds.take(bench.rounds * ROUNDS_IN_A_BURST, (OFF, JAILED), alone)
        many = await Rounds.take(bench.rounds, (OFF, JAILED), burst)
    bars = (
        Bar(f"{ALONE}: {JAILED} / {OFF}", one.ratio(JAILED, OFF, ALONE), "at most", MOST),
        Bar(f"{SPAWN}: {JAILED} / {OFF}", one.ratio(JAILED, OFF, SPAWN)),
        Bar(f"{BURST}: {JAILED} / {OFF}", many.ratio(JAILED, OFF, BURST), "at most", MOST),
        Bar(f"{DELETED}: {JAILED} / {OFF}", many.ratio(JAILED, OFF, DELETED)),
    )
    title = (
        f"share_memory forks by uffd, without prefetch and record; alone, and {bench.sizes.burst} in a burst, "
        f"{CONCURRENCY} at a time"
    )
    rows = (Row(mode, {**one.rows([mode])[0].values, **many.rows([mode])[0].values}) for mode in (OFF, JAILED))
    return Result(NAME, title, tuple(rows), bars)


async def _fork(client: SupervisorClient) -> Sample:
    clock = asyncio.get_running_loop().time
    began = clock()
    request = ForkRequest(share_memory=True, target_state="Running", prefetch="off", record="off")
    child = await client.fork(SOURCE, request)
    took = clock() - began
    spawned = next(phase.milliseconds for phase in child.phases if phase.name == "spawn")
    await client.delete(child.id)
    return {ALONE: took * 1e3, SPAWN: spawned}


async def _fan_out(client: SupervisorClient, count: int) -> Sample:
    clock = asyncio.get_running_loop().time
    began = clock()
    children = children_of(await client.fan_out(SOURCE, FanOutRequest(count=count, prefetch="off", record="off")))
    made = clock()
    await delete(client, children)
    return {BURST: (made - began) * 1e3, DELETED: (clock() - made) * 1e3}
