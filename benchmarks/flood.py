"""What others wait for while a guest prints as fast as it can."""

import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bench import MIB, PATIENCE, Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from benchmarks.peaks import forget_peak, peak
from benchmarks.supervised import standby_source, supervised
from forktui.client.api import SupervisorClient
from supervisor.consoles.rotation import end_of
from supervisor.models import ForkRequest, Instance

NAME: Final = "flood"
QUIET, FLOODED = "quiet", "flooded"
MEDIAN, LATE, FORK, LINE, PRINTED, PEAK = "p50 ms", "p99 ms", "fork ms", "line ms", "MiB/s", "peak MiB"
SOURCE: Final = "source"
PRINT: Final = "import os, sys\nout = os.open(sys.argv[1], os.O_WRONLY)\nwhile True: os.write(out, b'flood ' * 10000)"
SHARED: Final = ForkRequest(share_memory=True, target_state="Running")
REQUESTS: Final = 10
"""For each fork and each line."""


@dataclass(frozen=True)
class Host:
    """A supervisor with a guest that may print, and another one whose console is read."""

    client: SupervisorClient
    supervisor: int
    loud: Instance
    loud_log: Path
    other: Instance
    lines: AsyncGenerator[str, None]


async def measure(bench: Bench) -> Result:
    """Measure requests, forks and the way of a line, beside a guest that prints nothing and one that does."""
    async with supervised(bench, bench.any_hypervisor()) as (client, settings):
        await standby_source(bench, client, SOURCE, "done", "hot_mib=1", "passes=1")
        loud, other = [await client.fork(SOURCE, SHARED) for _ in range(2)]
        log = settings.data_dir / "instances" / loud.id / "console.log"
        supervisor = (await client.snapshot()).supervisor.pid
        async with contextlib.aclosing(client.follow_log(other.id, 1)) as lines:
            host = Host(client, supervisor, loud, log, other, lines)

            async def sample(mode: str) -> Sample:
                async with _printing(loud) if mode == FLOODED else contextlib.nullcontext():
                    return await _waited_for(host, bench.sizes.flood_seconds / bench.rounds)

            rounds = await Rounds.take(bench.rounds, (QUIET, FLOODED), sample)
    return Result(
        NAME,
        f"a guest prints as fast as it can for {bench.sizes.flood_seconds:.0f} s in all: GET /instances, a fork, a "
        "line of another guest's on its way to its reader, what is printed, the supervisor's memory",
        rounds.rows((QUIET, FLOODED)),
        tuple(
            Bar(f"{FLOODED} / {QUIET}, {column}", rounds.ratio(FLOODED, QUIET, column))
            for column in (MEDIAN, LATE, FORK, LINE, PEAK)
        ),
    )


@contextlib.asynccontextmanager
async def _printing(instance: Instance) -> AsyncIterator[None]:
    """Write to the pipe that is a VMM's standard output, so that a guest's own speed is no bound."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PRINT, _output(instance))
    try:
        yield
    finally:
        process.kill()
        await process.wait()


def _output(instance: Instance) -> str:
    return f"/proc/{instance.vmm_pid}/fd/1"


async def _waited_for(host: Host, seconds: float) -> Sample:
    forget_peak(host.supervisor)
    printed, began = end_of(host.loud_log), time.perf_counter()
    asked: list[float] = []
    forked: list[float] = []
    read: list[float] = []
    while not read or time.perf_counter() - began < seconds:
        for _ in range(REQUESTS):
            with _timed(asked):
                await host.client.instances()
        with _timed(forked):
            fork = await host.client.fork(SOURCE, SHARED)
        await host.client.delete(fork.id)
        with _timed(read):
            await _told(host, f"line {len(read)} of {began}")
    rate = (end_of(host.loud_log) - printed) / (time.perf_counter() - began) / MIB
    hundredths = statistics.quantiles(asked, n=100, method="inclusive")
    return {
        MEDIAN: hundredths[49] * 1e3,
        LATE: hundredths[98] * 1e3,
        FORK: statistics.median(forked) * 1e3,
        LINE: statistics.median(read) * 1e3,
        PRINTED: rate,
        PEAK: peak(host.supervisor) / MIB,
    }


async def _told(host: Host, line: str) -> None:
    """Have the other guest print a line, and return when its reader has it."""
    await asyncio.to_thread(Path(_output(host.other)).write_text, f"{line}\n")
    async with asyncio.timeout(PATIENCE):
        while await anext(host.lines) != line:
            continue


@contextlib.contextmanager
def _timed(seconds: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    seconds.append(time.perf_counter() - began)
