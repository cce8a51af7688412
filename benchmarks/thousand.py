"""A thousand live forks under one supervisor, beside ten: what making, listing, forking, watching and idling cost."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final

import psutil

from benchmarks.bench import MIB, PATIENCE, Bench
from benchmarks.measurement import Bar, Result, Row, Spread
from benchmarks.supervised import children_of, standby_source, supervised
from forktui.client.api import SupervisorClient
from forktui.model.reducing import reduce
from forktui.model.world import World
from supervisor.models import FanOutRequest, ForkRequest, State, Statistics
from supervisor.telemetry.sampler import PROCESSES_PER_SAMPLE

NAME: Final = "thousand"
SOURCE: Final = "source"
AT_ONCE: Final = 100
"""Forks in one fan-out."""
WORDS: Final = ("hot_mib=1", "passes=1")
"""A guest that halts soon: a thousand that walk would share the cores, and nothing else be measured."""
FORK, LIST, LINEAGE, ATTACH = "one more fork ms", "list ms", "lineage ms", "attach ms"
AFTER, IDLE, WATCHED = "CPU % just after", "idle CPU %", "CPU % with a subscriber"
RSS = "supervisor MiB"
SERVER_CPU, SERVER_RSS, VMM = "page server CPU %", "page server MiB", "private MiB a VMM"
MADE, SLOWEST, A_FORK = "one of a fan-out, p50 ms", "one of a fan-out, p99 ms", "a fork of a fan-out every ms"
DELETED: Final = "cascade s"
SHARED: Final = ForkRequest(share_memory=True, target_state="Running")


async def measure(bench: Bench) -> Result:
    """Make a few forks and then many of one source, and look at the supervisor when all of their guests have halted."""
    few, many = bench.sizes.crowds
    found: dict[int, Mapping[str, Spread]] = {}
    async with supervised(bench, bench.embedded) as (client, _):
        await standby_source(bench, client, SOURCE, "done", *WORDS)
        await client.fork(SOURCE, SHARED.model_copy(update={"name": "warm"}))
        await _until(client, lambda world: any(template.recorded_pages for template in world.templates.values()))
        made = 1
        for count in (few, many):
            found[count] = {**await _make(client, count - made), **await _look(bench, client)}
            made = count
        began = time.perf_counter()
        await client.delete(SOURCE, cascade=True)
        crowd = {**found[many], DELETED: _one(time.perf_counter() - began)}
    rows = tuple(
        Row(
            name,
            {f"{count:,} forks": values[name] for count, values in (*found.items(), (many, crowd)) if name in values},
        )
        for name in crowd
    )
    bars = (
        Bar(f"{IDLE}, {many:,} forks", crowd[IDLE], "at most", 3.0),
        Bar(f"{WATCHED}, {many:,} forks", crowd[WATCHED], "at most", 3.0),
        Bar(f"{RSS}, {many:,} forks", crowd[RSS], "at most", 150.0),
    )
    title = "embedded share_memory forks of one source, alive and halted"
    return Result(NAME, title, rows, bars)


async def _make(client: SupervisorClient, count: int) -> Mapping[str, Spread]:
    """Make so many forks, in fan-outs one after the other; returns what one took, and what it came to."""
    took: list[float] = []
    began = time.perf_counter()
    for first in range(0, count, AT_ONCE):
        request = FanOutRequest(count=min(AT_ONCE, count - first), force=True)
        children = children_of(await client.fan_out(SOURCE, request))
        took += [sum(phase.milliseconds for phase in child.phases) for child in children]
    each = (time.perf_counter() - began) * 1e3 / count
    percentiles = statistics.quantiles(took, n=100, method="inclusive") if len(took) > 1 else took * 99
    return {A_FORK: _one(each), MADE: _one(percentiles[49]), SLOWEST: _one(percentiles[98])}


async def _look(bench: Bench, client: SupervisorClient) -> Mapping[str, Spread]:
    world = await _until(client, _halted)
    assert world.supervisor is not None
    supervisor = psutil.Process(world.supervisor.pid)
    (server,) = (psutil.Process(one.page_server_pid) for one in world.templates.values() if one.page_server_pid)
    seconds = bench.sizes.idle_seconds
    after = await _cpu(supervisor, seconds)
    await _settled(client, len(world.instances))
    idle, served = await asyncio.gather(_cpu(supervisor, seconds), _cpu(server, seconds))
    async with _subscribed(client):
        watched = await _cpu(supervisor, seconds)
    return {
        FORK: await _forked(bench, client),
        LIST: await _timed(bench, client.instances),
        LINEAGE: await _timed(bench, lambda: client.lineage(SOURCE)),
        ATTACH: await _timed(bench, lambda: _until(client, lambda world: world.supervisor is not None)),
        AFTER: _one(after),
        IDLE: _one(idle),
        WATCHED: _one(watched),
        RSS: _one(supervisor.memory_info().rss / MIB),
        SERVER_CPU: _one(served),
        SERVER_RSS: _one(server.memory_info().rss / MIB),
        VMM: Spread.of([one.private_bytes / MIB for one in world.statistics.values()]),
    }


def _halted(world: World) -> bool:
    """Return whether every fork runs and its guest has done all that it had to."""
    running = {one.id for one in world.instances.values() if one.state is State.RUNNING}
    done = {one.id for one in world.statistics.values() if one.guest and one.guest.done and one.private_bytes}
    return running <= done


async def _settled(client: SupervisorClient, vms: int) -> None:
    """Return when all VMMs were looked at once since there was anything new of one."""
    left = looks = -(-vms // PROCESSES_PER_SAMPLE)
    async with asyncio.timeout(2 * PATIENCE), aclosing(client.events()) as events:
        async for _, event in events:
            if isinstance(event, Statistics):
                left = looks if event.instances else left - 1
            if not left:
                break


async def _until(client: SupervisorClient, condition: Callable[[World], bool]) -> World:
    """Return the world, as a client comes to know it, as soon as it is so."""
    world = World()
    async with asyncio.timeout(PATIENCE), aclosing(client.events()) as events:
        async for _, event in events:
            world = reduce(world, event)
            if condition(world):
                break
    return world


@asynccontextmanager
async def _subscribed(client: SupervisorClient) -> AsyncIterator[None]:
    """Read the supervisor's events while the context lasts."""
    reading = asyncio.create_task(_until(client, lambda _: False))
    try:
        yield
    finally:
        reading.cancel()
        await asyncio.wait((reading,))


async def _cpu(process: psutil.Process, seconds: float) -> float:
    """Return how much of a core a process uses in so many seconds in which nothing is asked of it, in percent."""
    before, began = process.cpu_times(), time.perf_counter()
    await asyncio.sleep(seconds)
    after, ended = process.cpu_times(), time.perf_counter()
    # Whole clock ticks, which as floating-point numbers would not be.
    return round(after.user + after.system - before.user - before.system, 2) / (ended - began) * 100


async def _forked(bench: Bench, client: SupervisorClient) -> Spread:
    """Return what a fork takes, from the request to its answer."""
    took = []
    for _ in range(bench.rounds):
        began = time.perf_counter()
        child = await client.fork(SOURCE, SHARED)
        took.append((time.perf_counter() - began) * 1e3)
        await client.delete(child.id)
    return Spread.of(took)


async def _timed(bench: Bench, work: Callable[[], Awaitable[object]]) -> Spread:
    took = []
    for _ in range(bench.rounds):
        began = time.perf_counter()
        await work()
        took.append((time.perf_counter() - began) * 1e3)
    return Spread.of(took)


def _one(value: float) -> Spread:
    return Spread(value, value, value)
