"""The interval map of a memory image: how long it takes to build, and to find a page in it, by how many extents."""

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Final

from benchmarks.bench import MIB, Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from supervisor.guests.pagewalker import PAGE_SIZE
from supervisor.uffd.memory_image import MemoryImage

NAME: Final = "image"
BUILD, LOOKUP, INTERVALS = "build ms", "lookup ns", "intervals"
LAYERS: Final = 4
LOOKUPS: Final = 100_000
LONGEST_BUILD_MS: Final = 1000.0


async def measure(bench: Bench) -> Result:
    """Measure in the file system of the run, which has to have holes."""
    size = bench.sizes.image_mib * MIB
    directory = bench.directory("image")
    chains = {f"{count:,} extents": count for count in bench.sizes.extents}
    paths = {mode: await asyncio.to_thread(_write_chain, directory, count, size) for mode, count in chains.items()}

    async def sample(mode: str) -> Sample:
        return await asyncio.to_thread(_measure, paths[mode], size)

    rounds = await Rounds.take(bench.rounds, tuple(chains), sample)
    fewest, *_, most = chains
    return Result(
        NAME,
        f"images of {bench.sizes.image_mib} MiB in {LAYERS} layers, page by page in turn: opened, mapped and resolved; "
        f"{LOOKUPS:,} lookups at random places",
        rounds.rows(chains),
        (
            Bar(f"{BUILD}: {most}", rounds.spread(most, BUILD), limit=LONGEST_BUILD_MS),
            Bar(f"{LOOKUP}: {most} / {fewest}", rounds.ratio(most, fewest, LOOKUP)),
        ),
    )


def _write_chain(directory: Path, extents: int, size: int) -> list[Path]:
    """Write layers whose pages of data lie apart, so that each is an extent, and next to those of the other layers."""
    paths = [directory / f"{extents}.{number}" for number in range(LAYERS)]
    step = size // PAGE_SIZE * LAYERS // extents
    page = b"\1" * PAGE_SIZE
    for number, path in enumerate(paths):
        with path.open("wb") as file:
            file.truncate(size)
            for place in range(extents // LAYERS):
                os.pwrite(file.fileno(), page, (place * step + number) * PAGE_SIZE)
    return paths


def _measure(paths: list[Path], size: int) -> Sample:
    dice = random.Random(1)
    offsets = [dice.randrange(size) for _ in range(LOOKUPS)]
    began = time.perf_counter()
    image = MemoryImage(paths, size)
    built = time.perf_counter()
    try:
        locate = image.locate
        for offset in offsets:
            locate(offset)
        found = time.perf_counter()
        return {
            BUILD: (built - began) * 1e3,
            LOOKUP: (found - built) / LOOKUPS * 1e9,
            INTERVALS: float(image.interval_count),
        }
    finally:
        image.close()
