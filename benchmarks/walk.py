"""From the load of a snapshot to the end of two verified walks of its hot set, for each way to serve its memory."""

import time
from typing import Final

from benchmarks.bench import Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from benchmarks.page_servers import ONE_PAGE, Served, page_map, page_server
from benchmarks.reference import reference_handler
from benchmarks.snapshot import PASSES, Backing, Snapshot, fork, take_snapshot
from supervisor.uffd.handle import Policy
from supervisor.uffd.page_map import PageMapReader

NAME: Final = "walk"
FILE, ONE, AROUND = "file", "uffd, one page a fault", "uffd, fault-around"
PREFETCH, CONCURRENT = "uffd, prefetch", "uffd, concurrent prefetch"
REFERENCE: Final = "C handler, one page a fault"
LOAD, FIRST, SECOND, TOTAL, FAULTS = "load ms", "first walk ms", "second walk ms", "total ms", "faults"


async def measure(bench: Bench) -> Result:
    """Measure; Skipped where Firecracker cannot run or there is no C compiler."""
    hypervisor = bench.real_firecracker()
    sizes = bench.sizes
    snapshot = await take_snapshot(bench, "walk", hypervisor, sizes.hot_mib)
    async with (
        page_server(bench, "single", snapshot.memory, ONE_PAGE) as single,
        page_server(bench, "around", snapshot.memory, Policy()) as around,
    ):
        await record(bench, snapshot, around)
        backings = {
            FILE: Backing(),
            ONE: Backing(single.server),
            AROUND: Backing(around.server),
            PREFETCH: Backing(around.server, prefetch="before_resume"),
            CONCURRENT: Backing(around.server, prefetch="concurrent"),
        }
        modes = (*backings, REFERENCE)

        async def sample(mode: str) -> Sample:
            if mode != REFERENCE:
                return await _walk(bench, snapshot, backings[mode])
            async with reference_handler(bench, snapshot.memory) as handler:
                return await _walk(bench, snapshot, Backing(socket=handler.socket))

        rounds = await Rounds.take(bench.rounds, modes, sample)
    return Result(
        NAME,
        f"load to the end of {PASSES} verified walks of {sizes.hot_mib} MiB; VM of {sizes.memory_mib} MiB, "
        f"its source had halted; {hypervisor.name} {hypervisor.version}",
        rounds.rows(modes),
        (
            *(bar for mode in (PREFETCH, CONCURRENT) for bar in _promised(rounds, mode)),
            Bar(f"{TOTAL}: fault-around / file", rounds.ratio(AROUND, FILE, TOTAL)),
            Bar(f"{TOTAL}: one page a fault / the same by C", rounds.ratio(ONE, REFERENCE, TOTAL)),
        ),
    )


def _promised(rounds: Rounds, mode: str) -> tuple[Bar, ...]:
    """Return what is promised of a prefetch."""
    name = mode.removeprefix("uffd, ")
    return (
        Bar(f"{TOTAL}: {name} / file", rounds.ratio(mode, FILE, TOTAL), "at most", 1.0),
        Bar(f"{TOTAL}: one page a fault / {name}", rounds.ratio(ONE, mode, TOTAL), "at least", 6.0),
        Bar(f"{FAULTS}: {name} / one page a fault", rounds.ratio(mode, ONE, FAULTS), "at most", 0.001),
    )


async def record(bench: Bench, snapshot: Snapshot, served: Served) -> None:
    """Make the page server's hot-page list by a warm-up fork."""
    async with fork(bench, "recorder", snapshot, Backing(served.server, record=True)) as recorder:
        await recorder.run()
        await recorder.walked()
        await served.recorded()


async def _walk(bench: Bench, snapshot: Snapshot, backing: Backing) -> Sample:
    async with fork(bench, "walker", snapshot, backing) as walker:
        began = time.perf_counter()
        await walker.run()
        loaded = time.perf_counter()
        walked = await walker.walked()
        ended = time.perf_counter()
        times = {LOAD: loaded - began, FIRST: walked - loaded, SECOND: ended - walked, TOTAL: ended - began}
        found = {column: seconds * 1e3 for column, seconds in times.items()}
        if backing.server is not None:
            with PageMapReader(page_map(bench, "walker")) as pages:
                found[FAULTS] = float(pages.counters().faults)
    return found
