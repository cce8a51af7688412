"""How long a checkpoint pauses a running VM, the first of it and a repeated one, at three rates of dirtying."""

import asyncio
import contextlib
from typing import Final

from benchmarks.bench import MIB, PATIENCE, Bench
from benchmarks.dirtier import write_image
from benchmarks.measurement import Bar, Result, Rounds, Sample
from benchmarks.standby import newest_layer_mib
from benchmarks.supervised import supervised
from forktui.client.api import SupervisorClient
from supervisor.guests.pagewalker import PAGE_SIZE
from supervisor.models import CreateRequest, Instance, State
from supervisor.settings import Settings

NAME: Final = "checkpoint"
FIRST, FIRST_MIB = "first pause ms", "first MiB"
REPEATED, REPEATED_MIB = "repeated pause ms", "repeated MiB"
WRITE: Final = "until durable ms"
PASSES: Final = 2
"""Lines that the guest prints before a checkpoint and after the one before: between two lines is a whole pass."""


async def measure(bench: Bench) -> Result:
    """Measure; Skipped where Firecracker cannot run."""
    hypervisor = bench.real_firecracker()
    hot_mib = bench.sizes.hot_mib
    rates = {_size(pages): pages for pages in (16, 32 * hot_mib, 256 * hot_mib)}
    async with supervised(bench, hypervisor) as (client, settings):
        for mode, pages in rates.items():
            await asyncio.to_thread(write_image, settings.data_dir / "images", _image(mode), pages)

        async def sample(mode: str) -> Sample:
            return await _checkpoints(bench, client, settings, _image(mode))

        rounds = await Rounds.take(bench.rounds, tuple(rates), sample)
    light = next(iter(rates))
    return Result(
        NAME,
        f"pause of a running VM of {bench.sizes.memory_mib} MiB that dirties so much between two checkpoints; "
        f"{hypervisor.name} {hypervisor.version}",
        rounds.rows(rates),
        (Bar(f"{REPEATED}, {light} dirtied", rounds.spread(light, REPEATED), "at most", 10.0),),
    )


async def _checkpoints(bench: Bench, client: SupervisorClient, settings: Settings, image: str) -> Sample:
    """Boot a VM, take two checkpoints of it, and delete all three."""
    size = f"{bench.sizes.memory_mib}MB"
    source = await client.create(CreateRequest(name=image, image=image, size=size))
    await client.wait(source.id, State.RUNNING, PATIENCE)
    made: list[Instance] = []
    for _ in range(2):
        await _passes(client, source)
        made.append(await client.checkpoint(source.id))
    first, repeated = ({phase.name: phase.milliseconds for phase in one.phases} for one in made)
    found = {
        FIRST: first["paused"],
        FIRST_MIB: newest_layer_mib(settings, made[0]),
        REPEATED: repeated["paused"],
        REPEATED_MIB: newest_layer_mib(settings, made[1]),
        WRITE: repeated["write"],
    }
    for one in (*made, source):
        await client.delete(one.id)
    return found


async def _passes(client: SupervisorClient, source: Instance) -> None:
    async with asyncio.timeout(PATIENCE), contextlib.aclosing(client.follow_log(source.id, tail=0)) as lines:
        for _ in range(PASSES):
            await anext(lines)


def _size(pages: int) -> str:
    size = pages * PAGE_SIZE
    return f"{size // MIB} MiB" if size >= MIB else f"{size // 1024} KiB"


def _image(mode: str) -> str:
    return f"dirtier-{mode.replace(' ', '-').lower()}"
