"""What a fault costs, and what a prefetch moves, against the least that can be done in C and against memcpy."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from benchmarks.bench import MIB, Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from benchmarks.page_servers import ONE_PAGE, PAGE_SIZE, Served, page_server
from benchmarks.reference import memcpy, reference_handler
from benchmarks.touchers import Pattern, Touchers, served_touchers, touchers, write_layer

NAME: Final = "faults"
OURS, REFERENCE, ABSENT, PRESENT = "page server", "C handler", "memcpy to absent memory", "memcpy to present memory"
FAULT, ONE_RUN, SCATTERED = "us a page", "MiB/s in one run", "MiB/s in 64 KiB runs"
CPU: Final = "CPU us of the handler"
"""For a page, on its core: what other processes do meanwhile is not in it."""
SCATTERED_RUN: Final = 16
"""Pages; a list of a real guest has many short runs and few long ones."""


async def measure(bench: Bench) -> Result:
    """Measure; Skipped where there is no C compiler."""
    layer = write_layer(bench)
    pages = bench.sizes.touched_pages
    patterns = {ONE_RUN: Pattern.one_run(pages), SCATTERED: Pattern(pages, SCATTERED_RUN, 2 * SCATTERED_RUN)}
    async with contextlib.AsyncExitStack() as stack:
        servers: dict[str, Served] = {}
        for number, (column, pattern) in enumerate(patterns.items()):
            server = await stack.enter_async_context(page_server(bench, f"faults{number}", layer, ONE_PAGE))
            await _record(bench, server, pattern)
            servers[column] = server

        async def sample(mode: str) -> Sample:
            if mode == OURS:
                return await _page_server(bench, servers, patterns)
            if mode == REFERENCE:
                return await _reference(bench, layer, patterns)
            return await _memcpy(bench, layer, patterns, absent=mode == ABSENT)

        modes = (OURS, REFERENCE, ABSENT, PRESENT)
        rounds = await Rounds.take(bench.rounds, modes, sample)
    return Result(
        NAME,
        f"one toucher, {pages} pages of {PAGE_SIZE} bytes, one after the other by faults, or prefetched",
        rounds.rows(modes),
        (
            Bar(f"{FAULT} by faults: page server / C", rounds.ratio(OURS, REFERENCE, FAULT), "at most", 1.3),
            Bar(f"{CPU}: page server / C", rounds.ratio(OURS, REFERENCE, CPU)),
            *(
                Bar(f"{column}: page server / C", rounds.ratio(OURS, REFERENCE, column), "at least", 0.8)
                for column in patterns
            ),
            *(Bar(f"{column}: page server / {ABSENT}", rounds.ratio(OURS, ABSENT, column)) for column in patterns),
        ),
    )


async def _record(bench: Bench, served: Served, pattern: Pattern) -> None:
    """Have a toucher record the pattern's runs as the server's hot pages."""
    async with served_touchers(bench, served.server, 1, pattern, record=True) as (recorder, _):
        await recorder.touch()
        recorded = await served.recorded()
    if recorded.runs != len(pattern.runs()):
        raise RuntimeError(f"{recorded.runs} runs were recorded in place of {len(pattern.runs())}")


async def _page_server(bench: Bench, servers: dict[str, Served], patterns: dict[str, Pattern]) -> Sample:
    server = servers[ONE_RUN].server
    async with served_touchers(bench, server, 1, patterns[ONE_RUN]) as (toucher, _):
        found = await _faults(toucher, server.pid, patterns[ONE_RUN])
    for column, pattern in patterns.items():
        server = servers[column].server
        async with served_touchers(bench, server, 1, pattern, "before_resume") as (toucher, (attached,)):
            found[column] = attached.prefetched_bytes / attached.prefetch_seconds / MIB
            await toucher.touch()
    return found


async def _reference(bench: Bench, layer: Path, patterns: dict[str, Pattern]) -> Sample:
    async with _served_by_reference(bench, layer, patterns[ONE_RUN], prefetch=False) as (handler, toucher, _):
        found = await _faults(toucher, handler, patterns[ONE_RUN])
    for column, pattern in patterns.items():
        async with _served_by_reference(bench, layer, pattern, prefetch=True) as (_, toucher, rate):
            found[column] = rate
            await toucher.touch()
    return found


@contextlib.asynccontextmanager
async def _served_by_reference(
    bench: Bench, layer: Path, pattern: Pattern, *, prefetch: bool
) -> AsyncIterator[tuple[int, Touchers, float]]:
    """Start the C handler and a toucher that it serves; gives its pid, the toucher, and the prefetch's MiB/s."""
    async with (
        reference_handler(bench, layer, pattern.runs() if prefetch else ()) as handler,
        touchers(bench, [handler.socket], pattern) as toucher,
    ):
        await toucher.connect()
        yield handler.pid, toucher, await handler.prefetched()


async def _memcpy(bench: Bench, layer: Path, patterns: dict[str, Pattern], *, absent: bool) -> Sample:
    found = {}
    for column, pattern in patterns.items():
        to_absent, to_present = await memcpy(bench, layer, pattern.runs())
        found[column] = to_absent if absent else to_present
    return {FAULT: PAGE_SIZE / MIB / found[ONE_RUN] * 1e6, **found}


async def _faults(toucher: Touchers, handler: int, pattern: Pattern) -> dict[str, float]:
    """Have the toucher fault on every page; returns microseconds a page, elapsed and of the handler's CPU."""
    began = _cpu_nanoseconds(handler)
    _, (touch,) = await toucher.touch()
    cpu = _cpu_nanoseconds(handler) - began
    return {FAULT: (touch.ended_ns - touch.began_ns) / pattern.pages / 1e3, CPU: cpu / pattern.pages / 1e3}


def _cpu_nanoseconds(pid: int) -> int:
    """Return how long a process of one thread has run: Documentation/scheduler/sched-stats.rst."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
