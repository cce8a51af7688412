"""What the forks of one template share, and what each has for itself, by memory backend."""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from benchmarks.page_servers import page_server
from benchmarks.snapshot import PASSES, Backing, Snapshot, fork, take_snapshot
from benchmarks.walk import record
from supervisor.uffd.handle import Policy

NAME: Final = "memory"
FILE, AROUND, PREFETCH = "file", "uffd, fault-around", "uffd, prefetch"
PRIVATE, SHARED, PROPORTIONAL = "private MiB", "shared MiB", "proportional MiB"
ROUNDS: Final = 3
"""What is measured hardly varies."""


async def measure(bench: Bench) -> Result:
    """Measure, on the embedded VMM where Firecracker cannot run."""
    hypervisor = bench.any_hypervisor()
    sizes = bench.sizes
    snapshot = await take_snapshot(bench, "memory", hypervisor, sizes.hot_mib)
    async with page_server(bench, "family", snapshot.memory, Policy()) as served:
        await record(bench, snapshot, served)
        modes = {
            FILE: Backing(),
            AROUND: Backing(served.server),
            PREFETCH: Backing(served.server, prefetch="before_resume"),
        }

        async def sample(mode: str) -> Sample:
            return await _family(bench, snapshot, modes[mode])

        rounds = await Rounds.take(min(bench.rounds, ROUNDS), tuple(modes), sample)
    return Result(
        NAME,
        f"a fork's share of {sizes.family} alive at once, after {PASSES} walks of {sizes.hot_mib} MiB; "
        f"VMs of {sizes.memory_mib} MiB, {hypervisor.name} {hypervisor.version}, smaps_rollup",
        rounds.rows(modes),
        (Bar(f"{PRIVATE}: prefetch / file", rounds.ratio(PREFETCH, FILE, PRIVATE)),),
    )


async def _family(bench: Bench, snapshot: Snapshot, backing: Backing) -> Sample:
    async with contextlib.AsyncExitStack() as stack:
        family = [
            await stack.enter_async_context(fork(bench, f"member{number}", snapshot, backing))
            for number in range(bench.sizes.family)
        ]
        for member in family:
            await member.run()
            await member.walked()
        rollups = [await asyncio.to_thread(_rollup, member.vmm.pid) for member in family]
    columns = {
        PRIVATE: ("Private_Clean", "Private_Dirty", "Private_Hugetlb"),
        SHARED: ("Shared_Clean", "Shared_Dirty", "Shared_Hugetlb"),
        PROPORTIONAL: ("Pss",),
    }
    return {
        column: sum(rollup[field] for rollup in rollups for field in fields) / len(rollups) / 1024
        for column, fields in columns.items()
    }


def _rollup(pid: int) -> dict[str, int]:
    """Return a process's smaps_rollup, in KiB: proc_pid_smaps(5)."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    return {name: int(size.split()[0]) for name, _, size in (line.partition(":") for line in lines)}
