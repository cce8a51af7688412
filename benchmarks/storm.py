"""Many forks of one template that fault all at once: what they get together, and whether each gets its share."""

import contextlib
import statistics
from typing import Final

from benchmarks.bench import Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from benchmarks.page_servers import ONE_PAGE, page_server
from benchmarks.touchers import Pattern, served_touchers, write_layer
from supervisor.uffd.handle import PageServer, Policy

NAME: Final = "storm"
RATE, SLOWEST, FAIRNESS = "pages/s", "slowest fork ms", "slowest / median"


async def measure(bench: Bench) -> Result:
    """Measure; Skipped where there is no C compiler."""
    layer = write_layer(bench)
    pattern = Pattern.one_run(bench.sizes.storm_pages)
    policies = {"one page a fault": ONE_PAGE, "fault-around": Policy()}
    async with contextlib.AsyncExitStack() as stack:
        modes: dict[str, tuple[PageServer, int]] = {}
        for number, (name, policy) in enumerate(policies.items()):
            served = await stack.enter_async_context(page_server(bench, f"storm{number}", layer, policy))
            modes |= {f"{name}, {count} forks": (served.server, count) for count in bench.sizes.storms}

        async def sample(mode: str) -> Sample:
            return await _storm(bench, *modes[mode], pattern)

        rounds = await Rounds.take(bench.rounds, tuple(modes), sample)
    return Result(
        NAME,
        f"touchers of one template, {pattern.pages} pages each, let go at the same moment",
        rounds.rows(modes),
        tuple(
            Bar(f"{FAIRNESS}: {mode}", rounds.spread(mode, FAIRNESS), "at most", 2.0)
            for mode, (_, count) in modes.items()
            if count > 1
        ),
    )


async def _storm(bench: Bench, server: PageServer, count: int, pattern: Pattern) -> Sample:
    async with served_touchers(bench, server, count, pattern) as (forks, _):
        went_ns, touches = await forks.touch()
    took = [touch.ended_ns - went_ns for touch in touches]
    return {
        RATE: count * pattern.pages / max(took) * 1e9,
        SLOWEST: max(took) / 1e6,
        FAIRNESS: max(took) / statistics.median(took),
    }
