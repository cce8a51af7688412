"""From the API call to Running, against a bare script that spawns and loads: what the control plane costs."""

import asyncio
import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from http import HTTPStatus
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from benchmarks.bare import BareFork, Connection
from benchmarks.bench import Bench
from benchmarks.measurement import Bar, Result, Rounds, Row, Sample
from benchmarks.snapshot import PASSES, Snapshot, take_snapshot
from benchmarks.supervised import CONCURRENCY, children_of, delete, standby_source, supervised
from forktui.client.api import SupervisorClient
from supervisor.models import FanOutRequest, FanOutResult, ForkRequest, Instance
from supervisor.vmm.hypervisor import Hypervisor

NAME: Final = "forks"
API, BARE = "API", "bare script"
ALONE, SPAWN, LOAD, BURST = "alone ms", "spawn ms", "load ms", "burst ms"
SOURCE: Final = "source"
HOT_MIB: Final = 1
"""Little for the guests to do: what they do is not measured, and takes time from what is."""
ALONE_IN_A_ROUND: Final = 3
ROUNDS_IN_A_BURST: Final = 5
"""A burst is measured in one round of so many."""


async def measure(bench: Bench) -> Result:
    """Measure with each hypervisor that can run here."""
    usable = [one for one in (bench.firecracker, bench.embedded) if isinstance(one, Hypervisor)]
    rows: tuple[Row, ...] = ()
    bars: tuple[Bar, ...] = ()
    for hypervisor in usable:
        alone, burst = await _measure(bench, hypervisor)
        for mode in (API, BARE):
            values = {**alone.rows([mode])[0].values, **burst.rows([mode])[0].values}
            rows += (Row(f"{hypervisor.name}, {mode}", values),)
        bars += (
            Bar(f"{ALONE}: API / bare, {hypervisor.name}", alone.ratio(API, BARE, ALONE), "at most", 1.25),
            Bar(f"{BURST}: API / bare, {hypervisor.name}", burst.ratio(API, BARE, BURST)),
        )
    title = (
        f"share_memory forks by uffd, without prefetch and record; alone, and {bench.sizes.burst} in a burst, "
        f"{CONCURRENCY} at a time"
    )
    return Result(NAME, title, rows, bars)


async def _measure(bench: Bench, hypervisor: Hypervisor) -> tuple[Rounds, Rounds]:
    snapshot = await take_snapshot(bench, f"bare-{hypervisor.name}", hypervisor, HOT_MIB)
    async with supervised(bench, hypervisor) as (client, _):
        await standby_source(bench, client, SOURCE, "done", f"hot_mib={HOT_MIB}", f"passes={PASSES}")

        async def alone(mode: str) -> Sample:
            return await (_fork(client) if mode == API else _bare_fork(bench, snapshot))

        async def burst(mode: str) -> Sample:
            return await (_fan_out(bench, client) if mode == API else _bare_burst(bench, snapshot))

        modes = (API, BARE)
        return (
            await Rounds.take(bench.rounds * ALONE_IN_A_ROUND, modes, alone),
            await Rounds.take(-(-bench.rounds // ROUNDS_IN_A_BURST), modes, burst),
        )


async def _fork(client: SupervisorClient) -> Sample:
    request = ForkRequest(share_memory=True, target_state="Running", prefetch="off", record="off")
    answer, took = await asyncio.to_thread(_post, client.socket, f"/instances/{SOURCE}/fork", request)
    child = Instance.model_validate_json(answer)
    phases = {phase.name: phase.milliseconds for phase in child.phases}
    await client.delete(child.id)
    return {ALONE: took * 1e3, SPAWN: phases["spawn"], LOAD: phases["load"] + phases["prefetch"]}


async def _fan_out(bench: Bench, client: SupervisorClient) -> Sample:
    request = FanOutRequest(count=bench.sizes.burst, prefetch="off", record="off")
    answer, took = await asyncio.to_thread(_post, client.socket, f"/instances/{SOURCE}/fan-out", request)
    await delete(client, children_of(FanOutResult.model_validate_json(answer)))
    return {BURST: took * 1e3}


def _post(socket: Path, path: str, body: BaseModel) -> tuple[bytes, float]:
    """Post with the client of the bare script; returns the answer, and the seconds until it was there."""
    text = body.model_dump_json(exclude_unset=True)
    began = time.perf_counter()
    with contextlib.closing(Connection(str(socket))) as connection:
        connection.request("POST", path, text, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        said = answer.read()
    took = time.perf_counter() - began
    if answer.status >= HTTPStatus.BAD_REQUEST:
        raise RuntimeError(f"the supervisor refused {path}: {said.decode(errors='replace')}")
    return said, took


async def _bare_fork(bench: Bench, snapshot: Snapshot) -> Sample:
    def alone(directory: Path) -> Sample:
        fork = _make_bare(snapshot, directory)
        fork.end()
        times = {ALONE: fork.spawn_seconds + fork.load_seconds, SPAWN: fork.spawn_seconds, LOAD: fork.load_seconds}
        return {column: seconds * 1e3 for column, seconds in times.items()}

    with _bare_directories(bench, 1) as (directory,):
        return await asyncio.to_thread(alone, directory)


async def _bare_burst(bench: Bench, snapshot: Snapshot) -> Sample:
    def burst(directories: Sequence[Path]) -> float:
        with ThreadPoolExecutor(CONCURRENCY) as places:
            began = time.perf_counter()
            making = [places.submit(_make_bare, snapshot, directory) for directory in directories]
            wait(making)
            took = time.perf_counter() - began
            made = [one.result() for one in making if one.exception() is None]
            list(places.map(BareFork.end, made))
        for failed in making:
            failed.result()
        return took

    with _bare_directories(bench, bench.sizes.burst) as directories:
        return {BURST: await asyncio.to_thread(burst, directories) * 1e3}


def _make_bare(snapshot: Snapshot, directory: Path) -> BareFork:
    return BareFork(snapshot.hypervisor.command, directory, snapshot.state, snapshot.memory)


@contextlib.contextmanager
def _bare_directories(bench: Bench, count: int) -> Iterator[list[Path]]:
    """Give new directories for bare forks; what they leave there goes with the context."""
    directories = [bench.directory(f"bare{number}") for number in range(count)]
    try:
        yield directories
    finally:
        for directory in directories:
            shutil.rmtree(directory)
