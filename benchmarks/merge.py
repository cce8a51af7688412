"""Layers merged into one durable file: a whole chain, as the file backend needs it, and the diffs upon an image."""

import asyncio
import os
import random
import time
from pathlib import Path
from typing import Final

from benchmarks.bench import MIB, Bench
from benchmarks.measurement import Result, Rounds, Sample
from supervisor.guests.pagewalker import PAGE_SIZE
from supervisor.snapshots.layer_files import complete, merge, remove
from supervisor.store.layout import PARTIAL
from supervisor.system.sparse_files import allocated

NAME: Final = "merge"
FLATTEN, COMPACT = "flatten", "compact"
TOOK, MERGED, EACH = "ms", "MiB", "ms per MiB"
DIFFS: Final = 8


async def measure(bench: Bench) -> Result:
    """Measure in the file system of the run."""
    sizes = bench.sizes
    directory = bench.directory("merge")
    layers = await asyncio.to_thread(_write_chain, directory, sizes.memory_mib, sizes.hot_mib)
    chains = {FLATTEN: layers, COMPACT: layers[:-1]}

    async def sample(mode: str) -> Sample:
        return await asyncio.to_thread(_merge, directory, chains[mode])

    rounds = await Rounds.take(bench.rounds, tuple(chains), sample)
    return Result(
        NAME,
        f"{DIFFS} diffs of {sizes.hot_mib / DIFFS:g} MiB in pages at random places, upon an image with half of "
        f"{sizes.memory_mib} MiB (flatten) or without it (compact); from the page cache, with fsync",
        rounds.rows(chains),
    )


def _write_chain(directory: Path, memory_mib: int, hot_mib: int) -> list[Path]:
    """Write layers and return them newest first; the same ones in every run."""
    places = random.Random(1)
    size = memory_mib * MIB
    oldest = directory / "oldest"
    with oldest.open("wb") as file:
        file.write(bytes(range(256)) * (size // 512))
        file.truncate(size)
    newer = [directory / f"diff.{number}" for number in range(DIFFS)]
    for path in newer:
        with path.open("wb") as file:
            file.truncate(size)
            for page in places.sample(range(size // PAGE_SIZE), hot_mib * MIB // PAGE_SIZE // DIFFS):
                os.pwrite(file.fileno(), b"\1" * PAGE_SIZE, page * PAGE_SIZE)
    os.sync()
    return [*newer, oldest]


def _merge(directory: Path, layers: list[Path]) -> Sample:
    began = time.perf_counter()
    merge(layers, directory / f"merged{PARTIAL}")
    complete(directory, ("merged",))
    took = (time.perf_counter() - began) * 1e3
    mib = allocated((directory / "merged").stat()) / MIB
    remove(directory, ("merged",))
    return {TOOK: took, MERGED: mib, EACH: took / mib}
