"""Standby of a fork that has walked its memory: whole, and as a diff layer; and what the tracking costs."""

import asyncio
import contextlib
import time
from typing import Final

from benchmarks.bench import MIB, PATIENCE, Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from benchmarks.snapshot import PASSES
from benchmarks.supervised import supervised
from forktui.client.api import SupervisorClient
from supervisor.models import CreateRequest, ForkRequest, Instance, State
from supervisor.settings import Settings
from supervisor.system.sparse_files import allocated

NAME: Final = "standby"
FULL, DIFF = "Full", "Diff"
STANDBY, WRITTEN, WALK = "standby ms", "written MiB", "fork to walked ms"


async def measure(bench: Bench) -> Result:
    """Measure, on the embedded VMM where Firecracker cannot run."""
    hypervisor = bench.any_hypervisor()
    sizes = bench.sizes
    async with supervised(bench, hypervisor) as (client, settings):
        for mode in (FULL, DIFF):
            await _source(bench, client, mode)

        async def sample(mode: str) -> Sample:
            return await _standby(client, settings, mode)

        rounds = await Rounds.take(bench.rounds, (FULL, DIFF), sample)
    return Result(
        NAME,
        f"a uffd fork of {sizes.memory_mib} MiB that has walked {sizes.hot_mib} MiB {PASSES} times goes to standby; "
        f"{hypervisor.name} {hypervisor.version}, with dirty tracking (Diff) and without (Full)",
        rounds.rows((FULL, DIFF)),
        (
            Bar(f"{STANDBY}: Diff / Full", rounds.ratio(DIFF, FULL, STANDBY)),
            Bar(f"{WRITTEN}: Diff / Full", rounds.ratio(DIFF, FULL, WRITTEN)),
            Bar(f"{WALK}: Diff / Full", rounds.ratio(DIFF, FULL, WALK)),
        ),
    )


def newest_layer_mib(settings: Settings, instance: Instance) -> float:
    """Return how many MiB the newest layer of an instance has on the disk."""
    layers = (settings.data_dir / "instances" / instance.id).glob("mem.*")
    return allocated(max(layers, key=lambda path: int(path.suffix[1:])).stat()) / MIB


async def _source(bench: Bench, client: SupervisorClient, mode: str) -> None:
    """Make a Standby pagewalker that is done, with or without dirty tracking."""
    words = (f"hot_mib={bench.sizes.hot_mib}", f"passes={PASSES}")
    request = CreateRequest(
        name=mode.lower(), image="pagewalker", size=f"{bench.sizes.memory_mib}MB", cmd=words,
        track_dirty_pages=mode == DIFF,
    )  # fmt: skip
    source = await client.create(request)
    await _until_done(client, source)
    await client.wait(source.id, State.RUNNING, PATIENCE)
    await client.standby(source.id)
    recorder = await client.fork(source.id, ForkRequest(share_memory=True, target_state="Running"))
    await _until_done(client, recorder)
    await client.delete(recorder.id)


async def _standby(client: SupervisorClient, settings: Settings, mode: str) -> Sample:
    began = time.perf_counter()
    fork = await client.fork(mode.lower(), ForkRequest(share_memory=True, target_state="Running"))
    await _until_done(client, fork)
    walked = time.perf_counter()
    fork = await client.standby(fork.id)
    ended = time.perf_counter()
    found = {
        STANDBY: (ended - walked) * 1e3,
        WRITTEN: newest_layer_mib(settings, fork),
        WALK: (walked - began) * 1e3,
    }
    await client.delete(fork.id)
    return found


async def _until_done(client: SupervisorClient, instance: Instance) -> None:
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(client.follow_log(instance.id)) as lines:
        async for line in lines:
            if line == "done":
                return
