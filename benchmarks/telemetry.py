"""What it costs the supervisor to read the statistics of many forks four times a second."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from supervisor.models import State
from supervisor.runtime.page_servers import PageServers
from supervisor.store.inventory import Inventory
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord, ProcessIdentity
from supervisor.store.registry import Registry
from supervisor.telemetry.sampler import PERIOD, Sampler
from supervisor.uffd.handle import Policy
from supervisor.uffd.map_files import new_map_file
from supervisor.uffd.page_map import FAULTS, LATENCY, PRESENT_PAGES, PageMap, PageMapReader
from tests.harness.plain_outputs import PLAIN

NAME: Final = "statistics"
READ, SAMPLE = "page maps: % of a core", "whole sample: % of a core"
RESIDENT_MIB: Final = 16
PAGES: Final = 32768
"""Of each fork: 128 MiB."""
MOST_PERCENT: Final = 2.0


async def measure(bench: Bench) -> Result:
    """Measure on page maps that this process writes, between the samples, as page servers do."""
    forks = bench.sizes.forks
    directory, run = bench.directory("statistics"), bench.directory("run")
    (run / "pages").mkdir()
    inventory = Inventory(Registry(Layout(directory, run)), lambda _: None)
    servers = PageServers(inventory, Policy(), PLAIN, lambda *_, **__: None)
    telemetry = Sampler(inventory, servers, lambda _: None, _nobody_waits, lambda *_, **__: None)
    modes = {f"{forks // part:,} of {forks:,} change": forks // part for part in (1, 10)}
    with ExitStack() as stack:
        vmm = stack.enter_context(_process())
        for number in range(forks):
            record = _record(number, vmm.pid)
            inventory.instances[record.id] = record
        maps = [_page_map(inventory.layout.page_map(fork_id)) for fork_id in inventory.instances]
        for one in maps:
            stack.callback(one.close)
        readers = [
            stack.enter_context(PageMapReader(inventory.layout.page_map(fork_id))) for fork_id in inventory.instances
        ]

        async def sample(mode: str) -> Sample:
            _fault(maps[: modes[mode]])
            read = _read(readers)
            began = time.process_time()
            await telemetry.sample()
            return {READ: read / PERIOD * 100, SAMPLE: (time.process_time() - began) / PERIOD * 100}

        rounds = await Rounds.take(bench.rounds, tuple(modes), sample)
        telemetry.stop()
        await telemetry.run()
    busiest = next(iter(modes))
    return Result(
        NAME,
        f"CPU time of one look at {forks:,} forks, {1 / PERIOD:g} times a second; a whole sample also reads what some "
        "VMMs have in memory and wait in, and makes the event of it",
        rounds.rows(modes),
        (
            Bar(f"{busiest}, {READ}", rounds.spread(busiest, READ), limit=MOST_PERCENT),
            Bar(f"{busiest}, {SAMPLE}", rounds.spread(busiest, SAMPLE)),
        ),
    )


async def _nobody_waits(_: str) -> None:
    """No guest here is on its way to Running."""


@contextmanager
def _process() -> Iterator[subprocess.Popen[bytes]]:
    """A process with as much memory as the VMM of a small fork; it stands for all of them."""
    program = f"memory = bytes(range(256)) * ({RESIDENT_MIB} << 12); input()"
    with subprocess.Popen((sys.executable, "-c", program), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


def _page_map(path: Path) -> PageMap:
    with new_map_file(path) as file:
        pages = PageMap.create(file.descriptor, path, 4096, PAGES)
        file.place()
    return pages


def _record(number: int, pid: int) -> InstanceRecord:
    """A fork that runs."""
    return InstanceRecord(
        id=f"fork{number:020}",
        name=f"fork-{number}",
        image="linux",
        state=State.RUNNING,
        hypervisor="firecracker",
        size_bytes=PAGES * 4096,
        vcpus=1,
        created_at=datetime.now(UTC),
        template_id="template",
        attached=True,
        memory_backend="uffd",
        process=ProcessIdentity(pid=pid, start_time=0),
    )


def _fault(maps: list[PageMap]) -> None:
    for one in maps:
        for word in (FAULTS, PRESENT_PAGES, LATENCY + 4):
            one.counters[word] += 1


def _read(readers: list[PageMapReader]) -> float:
    """Read all counters; returns the CPU seconds that it took."""
    began = time.process_time()
    for reader in readers:
        reader.counters()
    return time.process_time() - began
