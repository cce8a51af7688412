"""Samples page maps, consoles, processes and the host, and publishes what changed."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from supervisor import images
from supervisor.console import Console
from supervisor.errors import PageServerError
from supervisor.inventory import Inventory
from supervisor.models import Event, Guest, HostStatistics, InstanceStatistics, Level, State, Statistics
from supervisor.page_servers import PageServers
from supervisor.records import InstanceRecord
from supervisor.stalls import BOUND, Stall, age, observe, waits_for_page
from supervisor.uffd.page_map import PageCounters, PageMapReader
from supervisor.vmm.logs import CONSOLE_LOG

PERIOD = 0.25
"""Seconds between samples."""
PROCESSES_PER_SAMPLE = 8
"""How many VMMs have their memory read in one sample: smaps_rollup walks the page tables of the whole process, and a
thousand idle VMs are to cost the supervisor next to nothing."""
LOOKS_PER_SAMPLE = 64
"""How many VMMs are looked at in one sample for threads that wait for a page, beside those that are known to wait."""


_log = logging.getLogger(__name__)


@dataclass
class Watched:
    """What is kept between samples of one instance that runs."""

    pid: int
    console: Console | None
    page_map: PageMapReader | None = None
    memory: Mapping[str, int | float] | None = None
    guest: Guest | None = None
    counters: PageCounters | None = None
    stall: Stall = field(default_factory=Stall)
    alarmed: bool = False
    sources: tuple[object, ...] = ()
    """What the last statistics were made of."""

    def close(self) -> None:
        """Let go of the page map."""
        if self.page_map is not None:
            self.page_map.close()


class Telemetry:
    """The only reader of page maps; its statistics are a copy, a sample old at most."""

    def __init__(
        self,
        inventory: Inventory,
        page_servers: PageServers,
        publish: Callable[[Event], None],
        on_ready: Callable[[str], Awaitable[None]],
        report: Callable[[Level, str, str | None], None],
    ) -> None:
        self._inventory = inventory
        self._page_servers = page_servers
        self._publish = publish
        self._on_ready = on_ready
        self._report = report
        self._watched: dict[str, Watched] = {}
        self._process = psutil.Process()
        self._turn = 0
        self._failures: set[type[Exception]] = set()
        self._stop = asyncio.Event()
        self.statistics: dict[str, InstanceStatistics] = {}
        self.host = HostStatistics()

    async def run(self) -> None:
        """Sample until told to stop."""
        while not self._stop.is_set():
            try:
                await self.sample()
            except Exception as error:
                # Statistics and alarms of all VMs hang on this loop: a sample that fails is not the last one.
                if type(error) not in self._failures:
                    self._failures.add(type(error))
                    _log.exception("a sample failed; the next are tried all the same")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), PERIOD)
        for watched in self._watched.values():
            watched.close()

    def stop(self) -> None:
        """End the sampling after the sample in progress."""
        self._stop.set()

    async def sample(self) -> None:
        """Take one sample of everything that runs and publish what differs from the one before."""
        records = [record for record in self._inventory.instances.values() if record.process is not None]
        self._follow(records)
        self._turn += 1
        running = [record.id for record in records]
        due = _in_turn(running, PROCESSES_PER_SAMPLE, self._turn)
        looks = _in_turn(running, LOOKS_PER_SAMPLE, self._turn)
        servers = self._page_servers.pids
        found, self.host = await asyncio.to_thread(self._read, records, due, looks, servers)
        # What has not changed is the very object of the sample before: comparing models costs more than reading maps.
        before = self.statistics
        changed = [one for key, one in found.items() if one is not before.get(key) and one != before.get(key)]
        self.statistics = found
        self._publish(Statistics(at=datetime.now(UTC), instances=tuple(changed), host=self.host))
        self._tell_stalls(records)
        for record in records:
            guest = self._watched[record.id].guest if record.id in self._watched else None
            if record.state is State.INITIALIZING and guest is not None and (guest.ready or guest.corrupt):
                await self._on_ready(record.id)

    def private_bytes(self, instance_id: str) -> int:
        """Return the private memory of an instance's VMM as last sampled, in bytes; 0 where none runs."""
        found = self.statistics.get(instance_id)
        return found.private_bytes if found else 0

    def _follow(self, records: Iterable[InstanceRecord]) -> None:
        """Watch what has begun to run, and forget what has ended."""
        running = {record.id: record for record in records}
        for instance_id in list(self._watched):
            record = running.get(instance_id)
            if record is None or record.process is None or record.process.pid != self._watched[instance_id].pid:
                self._watched.pop(instance_id).close()
        for record in running.values():
            if record.id not in self._watched and record.process is not None:
                console = None
                if images.announces_ready(record.image):
                    path = self._inventory.registry.directory(record.id) / CONSOLE_LOG
                    console = Console(path, record.console_offset)
                self._watched[record.id] = Watched(record.process.pid, console)

    def _read(
        self,
        records: Iterable[InstanceRecord],
        due: frozenset[str],
        looks: frozenset[str],
        servers: tuple[int, ...],
    ) -> tuple[dict[str, InstanceStatistics], HostStatistics]:
        found: dict[str, InstanceStatistics] = {}
        for record in records:
            watched = self._watched[record.id]
            if watched.memory is None or record.id in due:
                watched.memory = process_memory(watched.pid)
            if watched.console is not None:
                watched.guest = watched.console.read()
            watched.counters = self._counters(record, watched)
            if watched.counters is not None and (record.id in looks or _may_wait(watched)):
                waits = waits_for_page(watched.pid)
                watched.stall = observe(watched.stall, waits, watched.counters.faults, time.monotonic())
            # What has not changed is not made again: at a thousand VMs that is nearly all.
            known = self.statistics.get(record.id)
            sources = (watched.counters, watched.memory, watched.guest, watched.stall)
            if known is None or watched.stall.since is not None or sources != watched.sources:
                known = _statistics(record.id, watched)
            watched.sources = sources
            found[record.id] = known
        return found, self._host(servers)

    def _tell_stalls(self, records: Iterable[InstanceRecord]) -> None:
        """Raise an alarm for each guest that waits too long, once, and say when it goes on."""
        now = time.monotonic()
        for record in records:
            watched = self._watched.get(record.id)
            if watched is None:
                continue
            waited = age(watched.stall, now)
            if waited > BOUND and not watched.alarmed:
                watched.alarmed = True
                self._report("alarm", f"{record.name}: its guest has waited {waited:.1f} s for a page", record.id)
            elif watched.alarmed and waited < BOUND:
                watched.alarmed = False
                self._report("info", f"{record.name}: its guest goes on", record.id)

    def _counters(self, record: InstanceRecord, watched: Watched) -> PageCounters | None:
        if not record.attached or record.memory_backend != "uffd":
            return None
        try:
            if watched.page_map is None:
                watched.page_map = PageMapReader(self._page_servers.page_map(record.id))
            return watched.page_map.counters()
        except (OSError, PageServerError):
            return None

    def _host(self, servers: Iterable[int]) -> HostStatistics:
        memory = psutil.virtual_memory()
        rss, seconds = 0, 0.0
        for pid in servers:
            sample = process_memory(pid)
            rss += int(sample["rss_bytes"])
            seconds += sample["cpu_seconds"]
        return HostStatistics(
            cpu_percent=psutil.cpu_percent(None),
            memory_total_bytes=memory.total,
            memory_available_bytes=memory.available,
            supervisor_rss_bytes=self._process.memory_info().rss,
            page_server_rss_bytes=rss,
            page_server_cpu_seconds=seconds,
        )


def _in_turn(instance_ids: list[str], count: int, turn: int) -> frozenset[str]:
    """Return so many instances, others at each turn until all have had theirs."""
    if len(instance_ids) <= count:
        return frozenset(instance_ids)
    start = turn * count % len(instance_ids)
    return frozenset((instance_ids * 2)[start : start + count])


def _may_wait(watched: Watched) -> bool:
    """Return whether a fault waits as far as its page server knows, or did when it was last looked at."""
    waits = watched.counters is not None and watched.counters.oldest_fault_age_seconds > 0
    return waits or watched.stall.since is not None


def _statistics(instance_id: str, watched: Watched) -> InstanceStatistics:
    memory, counters = watched.memory or {}, watched.counters
    if counters is None or watched.page_map is None:
        return InstanceStatistics(id=instance_id, guest=watched.guest, **memory)
    oldest = max(counters.oldest_fault_age_seconds, age(watched.stall, time.monotonic()))
    return InstanceStatistics(
        id=instance_id,
        guest=watched.guest,
        **memory,
        faults=counters.faults,
        fault_around_pages=counters.fault_around_pages,
        present_pages=counters.present_pages,
        total_pages=watched.page_map.page_count,
        prefetched_pages=counters.prefetched_pages,
        prefetch_bytes=counters.prefetched_bytes,
        prefetch_ms=round(counters.prefetch_seconds * 1e3, 3),
        residual_faults=counters.residual_faults,
        zero_pages=counters.zero_pages,
        removed_pages=counters.removed_pages,
        copied_bytes=counters.copied_bytes,
        copy_errors=counters.copy_errors,
        oldest_fault_ms=round(oldest * 1e3, 3),
    )


def process_memory(pid: int) -> Mapping[str, int | float]:
    """Return a process's resident, private and shared bytes and its CPU seconds; zeros where it has ended.

    Private and shared are the sums of smaps_rollup's Private_* and Shared_* (proc_pid_smaps(5)).
    """
    private = shared = 0
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times, rss = process.cpu_times(), process.memory_info().rss
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
            key, _, value = line.partition(":")
            if key.startswith("Private_"):
                private += int(value.split()[0]) * 1024
            elif key.startswith("Shared_"):
                shared += int(value.split()[0]) * 1024
    except (OSError, psutil.Error):
        return {"rss_bytes": 0, "private_bytes": 0, "shared_bytes": 0, "cpu_seconds": 0.0}
    return {
        "rss_bytes": rss,
        "private_bytes": private,
        "shared_bytes": shared,
        "cpu_seconds": round(times.user + times.system, 2),
    }
