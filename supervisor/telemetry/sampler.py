"""Samples page maps, consoles, processes and the host, and publishes what changed."""

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil

from supervisor.errors import PageServerError
from supervisor.images.builtin_image import announces_ready
from supervisor.models import Event, Guest, HostStatistics, InstanceStatistics, Stalled, State, Statistics
from supervisor.models.base import Report
from supervisor.runtime.page_servers import PageServers
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord
from supervisor.system.cgroup_limits import CgroupUsage
from supervisor.system.processes import boot_seconds
from supervisor.telemetry.console_end import ConsoleEnd
from supervisor.telemetry.guest_console import GuestConsole
from supervisor.telemetry.page_totals import PageTotals
from supervisor.telemetry.process_usage import Memory, Usage, memory, progress, usage, waits_for_page
from supervisor.telemetry.stalls import BOUND, Stall, age, observe, stalled
from supervisor.uffd.page_map import PageCounters, PageMapReader

PERIOD = 0.25
"""Seconds between samples."""
QUIET_PERIOD = 0.5
"""The same after one in which there was nothing new, as long as no instance changes."""
QUIET_PER_SAMPLE = 64
"""How many of the VMs of which nothing was new are looked at in one sample, in turn: a thousand idle VMs are to cost
the supervisor next to nothing."""
PROCESSES_PER_SAMPLE = 8
"""How many VMMs have their /proc looked at in one sample, in turn."""
ROLLUPS_SPARED = 16
"""How many such looks at a VMM that has not run may pass without smaps_rollup, which walks the page tables of the whole
process: pages of files that it shared become private when others end."""


_log = logging.getLogger(__name__)


@dataclass
class Watched:
    """What is kept between samples of one instance that runs."""

    pid: int
    console: GuestConsole | None
    console_end: ConsoleEnd
    page_map: PageMapReader | None = None
    usage: Usage | None = None
    memory: Memory = field(default_factory=Memory)
    cgroup: CgroupUsage | None = None
    """Of one in a jail: of all that runs there."""
    present_pages: int = 0
    """As of the last look at the memory: a page server puts pages there without the VMM's doing."""
    rollups_spared: int = 0
    guest: Guest | None = None
    counters: PageCounters | None = None
    stall: Stall = field(default_factory=Stall)
    stalled: Stalled | None = None
    told: Stalled | None = None
    """What was last told of that."""
    sources: tuple[object, ...] = ()
    """What the last statistics were made of."""
    quiet: bool = False
    """Whether there was nothing new at the last look."""

    def close(self) -> None:
        """Let go of the page map."""
        if self.page_map is not None:
            self.page_map.close()
        self.page_map = None


class Sampler:
    """The only reader of page maps; its statistics are a copy, a sample old at most."""

    def __init__(
        self,
        inventory: Inventory,
        page_servers: PageServers,
        publish: Callable[[Event], None],
        on_ready: Callable[[str], Awaitable[None]],
        report: Report,
        holder_pid: Callable[[], int | None] = lambda: None,
        cgroup_usage: Callable[[str], CgroupUsage | None] = lambda _: None,
    ) -> None:
        """`holder_pid` tells which process the console holder is, `cgroup_usage` what an instance in a jail uses."""
        self._inventory = inventory
        self._page_servers = page_servers
        self._publish = publish
        self._on_ready = on_ready
        self._report = report
        self._holder_pid = holder_pid
        self._cgroup_usage = cgroup_usage
        self._watched: dict[str, Watched] = {}
        self._pid = os.getpid()
        self._turn = 0
        self._followed = -1
        self._running: dict[str, InstanceRecord] = {}
        self._lively: set[str] = set()
        self._failures: set[type[Exception]] = set()
        self._stop = asyncio.Event()
        self.pages = PageTotals()
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
            await self._rest()
        for watched in self._watched.values():
            watched.close()

    async def _rest(self) -> None:
        """Wait until the next sample is due: while nothing is new that is later, unless an instance changes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PERIOD):
                await self._stop.wait()
        if not self._lively and not self._stop.is_set():
            ends = [asyncio.create_task(self._stop.wait()), asyncio.create_task(self._inventory.publisher.changed())]
            await asyncio.wait(ends, timeout=QUIET_PERIOD - PERIOD, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()

    def stop(self) -> None:
        """End the sampling after the sample in progress."""
        self._stop.set()

    async def sample(self) -> None:
        """Take one sample of what runs and publish what differs from the one before."""
        self._follow()
        due, records = self._due()
        try:
            changed, self.host = await asyncio.to_thread(self._read, records, due, self._page_servers.pids)
        except Exception:
            # What was new of some has been seen, and is told to nobody: it is new to the next sample too.
            for record in records:
                self._watched[record.id].sources = ()
            raise
        changed = [one for one in changed if one.id in self._inventory.instances]
        self._lively = {record.id for record in records if not self._watched[record.id].quiet}
        self.statistics |= {one.id: one for one in changed}
        for record in records:
            watched = self._watched[record.id]
            if watched.counters is not None:
                self.pages.see(record.id, watched.counters)
        at, clock = datetime.now(UTC), boot_seconds()
        self._publish(Statistics(at=at, clock=clock, instances=tuple(changed), host=self.host))
        self._tell_stalls(records)
        self._tell_last_words(records)
        for record in records:
            guest = self._watched[record.id].guest if record.id in self._watched else None
            if record.state is State.INITIALIZING and guest is not None and (guest.ready or guest.corrupt):
                await self._on_ready(record.id)

    def private_bytes(self, instance_id: str) -> int:
        """Return the private memory of an instance's VMM as last sampled, in bytes; 0 where none runs."""
        found = self.statistics.get(instance_id)
        return found.private_bytes if found else 0

    def cgroup_usage(self, instance_id: str) -> CgroupUsage | None:
        """Return what all in an instance's jail used as last sampled; None where it runs in none."""
        watched = self._watched.get(instance_id)
        return watched.cgroup if watched else None

    def _follow(self) -> None:
        """Watch what has begun to run, and forget what has ended."""
        if self._followed == self._inventory.publisher.changes:
            return
        self._followed = self._inventory.publisher.changes
        self._running = {record.id: record for record in self._inventory.instances.values() if record.process}
        for record in self._running.values():
            watched = self._watched.get(record.id)
            if record.process is not None and (watched is None or watched.pid != record.process.pid):
                self._forget(record.id)
                of_it = (self._inventory.layout.console_log(record.id), record.console_offset)
                console = GuestConsole(*of_it) if announces_ready(record.image) else None
                self._watched[record.id] = Watched(record.process.pid, console, ConsoleEnd(*of_it))
                self._lively.add(record.id)
        for instance_id in self._watched.keys() - self._running.keys():
            self._forget(instance_id)

    def _forget(self, instance_id: str) -> None:
        watched = self._watched.pop(instance_id, None)
        if watched is not None:
            watched.close()
        self.pages.end(instance_id)
        self.statistics.pop(instance_id, None)

    def _due(self) -> tuple[frozenset[str], list[InstanceRecord]]:
        """Return whose processes this sample looks at, and all that it looks at: those, the lively ones, and a share
        of all in turn.
        """
        ids = list(self._running)
        due = frozenset(_turn(ids, self._turn, PROCESSES_PER_SAMPLE))
        looked_at = due.union(_turn(ids, self._turn, QUIET_PER_SAMPLE), self._lively & self._running.keys())
        self._turn += 1
        return due, [self._running[instance_id] for instance_id in looked_at]

    def _read(
        self, records: Iterable[InstanceRecord], due: frozenset[str], servers: Iterable[int]
    ) -> tuple[list[InstanceStatistics], HostStatistics]:
        """Return the statistics that are new, and the host's."""
        changed = []
        for record in records:
            watched = self._watched[record.id]
            if watched.usage is None or record.id in due:
                _look_at_process(watched)
                watched.cgroup = self._cgroup_usage(record.id) if record.jail_uid is not None else None
                watched.console_end.look(time.monotonic())
            if watched.console is not None and not (watched.guest and watched.guest.done):
                watched.guest = watched.console.read()
            watched.counters = self._counters(record, watched)
            if record.served_over_uffd and (record.id in due or _may_wait(watched)):
                # Also of a fork without a page map: nobody may answer it.
                self._look_at_wait(record, watched)
            said = watched.console_end.last_words
            sources = (watched.counters, watched.memory, watched.usage, watched.guest, watched.stall.since, said)
            boots = record.state is State.INITIALIZING
            watched.quiet = watched.stall.since is None and not boots and sources == watched.sources
            if not watched.quiet:
                watched.sources = sources
                changed.append(_statistics(record.id, watched))
        return changed, self._host(servers)

    def _look_at_wait(self, record: InstanceRecord, watched: Watched) -> None:
        """See whether a guest waits for a page, and what its page server does meanwhile; also where that is gone."""
        counters, now = watched.counters, time.monotonic()
        answered = counters.faults if counters else watched.stall.answered
        failed = counters.copy_errors if counters else watched.stall.failed
        waits, template = waits_for_page(watched.pid), self._inventory.templates.get(record.template_id or "")
        waits_long = waits or _waited(watched, now) >= BOUND
        server = template.page_server if template is not None and waits_long else None
        does = progress(server.pid) if server is not None else None
        watched.stall = observe(watched.stall, waits, answered, now, does, failed)
        found = stalled(watched.stall, _waited(watched, now), does, failed)
        # Nobody who was found not to answer is taken for slow until something was answered.
        watched.stalled = "stuck" if found and watched.stalled == "stuck" else found

    def _tell_stalls(self, records: Iterable[InstanceRecord]) -> None:
        """Tell of each guest that waits long, once as slow and once as stuck, and say when it goes on."""
        now = time.monotonic()
        for record in records:
            watched = self._watched.get(record.id)
            if watched is None or watched.told == watched.stalled:
                continue
            watched.told, told = watched.stalled, f"{record.name}: its guest has waited {_waited(watched, now):.1f} s"
            if watched.told is None:
                self._report("info", f"{record.name}: its guest goes on", record.id)
            elif watched.told == "slow":
                self._report("warning", f"{told} for a page: its page server is slow", record.id, shown=True)
            else:
                self._report("alarm", f"{told} for a page, and nobody answers", record.id, shown=True)

    def _tell_last_words(self, records: Iterable[InstanceRecord]) -> None:
        """Say of each guest whose console tells of its end that its VM goes on all the same, once."""
        now = time.monotonic()
        for record in records:
            watched = self._watched.get(record.id)
            said = watched.console_end.to_tell(now) if watched is not None else None
            if said is not None:
                told = f"{record.name}: its console says {said.line!r}, and its VM goes on; stop it if that is so"
                self._report("warning", told, record.id, shown=True)

    def _counters(self, record: InstanceRecord, watched: Watched) -> PageCounters | None:
        if not record.served_over_uffd:
            return None
        try:
            if watched.page_map is not None and not watched.page_map.in_place:
                watched.close()
            if watched.page_map is None:
                watched.page_map = PageMapReader(self._inventory.layout.page_map(record.id))
            return watched.page_map.counters()
        except (OSError, PageServerError):
            watched.close()
            return None

    def _host(self, servers: Iterable[int]) -> HostStatistics:
        host = psutil.virtual_memory()
        used = [found for found in map(usage, servers) if found is not None]
        own = usage(self._pid)
        disk_total, disk_available = _disk(self._inventory.layout.data_dir)
        return HostStatistics(
            cpu_percent=psutil.cpu_percent(None),
            memory_total_bytes=host.total,
            memory_available_bytes=host.available,
            disk_total_bytes=disk_total,
            disk_available_bytes=disk_available,
            supervisor_rss_bytes=own.rss_bytes if own else 0,
            page_server_rss_bytes=sum(one.rss_bytes for one in used),
            page_server_cpu_seconds=sum(one.cpu_seconds for one in used),
            console_holder_pid=self._holder_pid(),
        )


def _disk(directory: Path) -> tuple[int, int]:
    """Return the bytes of a directory's file system, and those that may still be written."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return 0, 0
    return found.f_blocks * found.f_frsize, found.f_bavail * found.f_frsize


def _may_wait(watched: Watched) -> bool:
    """Return whether a fault waits as far as its page server knows, or did when it was last looked at."""
    waits = watched.counters is not None and watched.counters.oldest_fault_age_seconds > 0
    return waits or watched.stall.since is not None


def _waited(watched: Watched, now: float) -> float:
    """Return for how many seconds a fault has waited, as its page server knows or its VMM's threads tell."""
    return max(watched.counters.oldest_fault_age_seconds if watched.counters else 0.0, age(watched.stall, now))


def _turn(ids: Sequence[str], turn: int, count: int) -> Sequence[str]:
    """Return about `count` of them, so that every one has its turn."""
    shares = -(-len(ids) // count)
    return ids[turn % shares :: shares] if shares else ()


def _look_at_process(watched: Watched) -> None:
    """Read what a VMM uses, and its memory where that may have changed since."""
    used = usage(watched.pid)
    present = watched.counters.present_pages if watched.counters else 0
    if used is not None and (used, present) == (watched.usage, watched.present_pages):
        watched.rollups_spared += 1
        if watched.rollups_spared < ROLLUPS_SPARED:
            return
    watched.rollups_spared = 0
    watched.usage, watched.present_pages = used, present
    watched.memory = memory(watched.pid)


def _cpu_seconds(watched: Watched) -> float:
    """Return the processor time of a VMM, in a jail with that of whatever it has started."""
    if watched.cgroup is not None:
        return round(watched.cgroup.cpu_seconds, 2)
    return watched.usage.cpu_seconds if watched.usage else 0.0


def _statistics(instance_id: str, watched: Watched) -> InstanceStatistics:
    counters = watched.counters
    said = {"guest": watched.guest, "last_words": watched.console_end.last_words}
    used = watched.memory._asdict() | {"cpu_seconds": _cpu_seconds(watched)}
    waits = {"oldest_fault_ms": round(_waited(watched, time.monotonic()) * 1e3, 3), "stalled": watched.stalled}
    if counters is None or watched.page_map is None:
        return InstanceStatistics(id=instance_id, **waits, **said, **used)
    return InstanceStatistics(
        id=instance_id,
        **said,
        **used,
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
        **waits,
    )
