"""A fork of a VM with a disk, against one without: a disk that all share, and copies of those that are written to."""

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Final

from benchmarks.bench import MIB, PATIENCE, Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from benchmarks.supervised import supervised
from forktui.client.api import SupervisorClient
from supervisor.guests.boot import kernel_path
from supervisor.models import CreateRequest, ForkRequest, State

NAME: Final = "disks"
FORK: Final = "fork ms"
NONE: Final = "none"
MOST_OF_SHARED: Final = 1.1
FEW_ROUNDS: Final = 3
"""Of those that copy whole disks."""
WRITTEN_MIB: Final = 16
"""Of a disk that is mostly holes."""


async def measure(bench: Bench) -> Result:
    """Measure; Skipped where Firecracker cannot run."""
    hypervisor = bench.real_firecracker()
    sizes = bench.sizes.disks_mib
    shared = {f"shared, {_size(mib)}": mib for mib in sizes}
    sparse = {f"sparse, {_size(mib)}": mib for mib in sizes}
    full = {f"full, {_size(mib)}": mib for mib in sizes}
    async with supervised(bench, hypervisor) as (client, settings):
        images = settings.data_dir / "images"
        for mode, mib in {NONE: 0, **shared, **sparse, **full}.items():
            await asyncio.to_thread(_write_image, images / _name(mode), mode, mib)
            await _standby(client, _name(mode))

        async def fork(mode: str) -> Sample:
            return await _fork(client, _name(mode))

        light = await Rounds.take(bench.rounds, (NONE, *shared, *sparse), fork)
        heavy = await Rounds.take(min(bench.rounds, FEW_ROUNDS), (NONE, *full), fork)
    bars = [
        *(Bar(f"{FORK}: {mode} / {NONE}", light.ratio(mode, NONE, FORK), "at most", MOST_OF_SHARED) for mode in shared),
        *(Bar(f"{FORK}: {mode} / {NONE}", light.ratio(mode, NONE, FORK)) for mode in sparse),
        *(Bar(f"{FORK}: {mode} / {NONE}", heavy.ratio(mode, NONE, FORK)) for mode in full),
    ]
    rows = (*light.rows((NONE, *shared, *sparse)), *heavy.rows(tuple(full)))
    title = f"one share_memory fork by uffd of a VM of {bench.sizes.memory_mib} MiB, from the API call to Running"
    return Result(NAME, title, rows, tuple(bars))


def _write_image(directory: Path, mode: str, mib: int) -> None:
    """Make an image of pagewalker, which takes no notice of its disk."""
    directory.mkdir(parents=True)
    shutil.copy(kernel_path(), directory / "kernel")
    drives = []
    if mib:
        read_only = mode.startswith("shared")
        written = min(WRITTEN_MIB, mib) if mode.startswith("sparse") else mib
        with (directory / "disk").open("wb") as disk:
            disk.truncate(mib * MIB)
            # Of one that is shared nothing is read, whatever it has.
            for start in range(0 if read_only else written):
                os.pwrite(disk.fileno(), os.urandom(MIB), start * (mib // written) * MIB)
        drives.append({"drive_id": "disk", "path_on_host": "disk", "is_root_device": False, "is_read_only": read_only})
    boot_source = {"kernel_image_path": "kernel", "boot_args": "hot_mib=1 passes=1"}
    (directory / "vm.json").write_text(json.dumps({"boot-source": boot_source, "drives": drives}))


async def _standby(client: SupervisorClient, name: str) -> None:
    await client.create(CreateRequest(name=name, image=name))
    await client.wait(name, State.RUNNING, PATIENCE)
    await client.standby(name)


async def _fork(client: SupervisorClient, source: str) -> Sample:
    began = asyncio.get_running_loop().time()
    request = ForkRequest(share_memory=True, target_state="Running", prefetch="off", record="off")
    child = await client.fork(source, request)
    took = asyncio.get_running_loop().time() - began
    await client.delete(child.id)
    return {FORK: took * 1e3}


def _name(mode: str) -> str:
    return mode.replace(", ", "-").replace(" ", "").lower()


def _size(mib: int) -> str:
    return f"{mib >> 10} GiB" if mib >= 1024 else f"{mib} MiB"
