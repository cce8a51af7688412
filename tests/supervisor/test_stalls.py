"""Guests that wait too long for a page are found from outside."""

import asyncio
import ctypes
import errno
import mmap
import os
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.models import State
from supervisor.runtime.page_servers import PageServers
from supervisor.store.inventory import Inventory
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord, ProcessIdentity
from supervisor.store.registry import Registry
from supervisor.telemetry.process_usage import progress, waits_for_page
from supervisor.telemetry.sampler import Sampler
from supervisor.telemetry.stalls import Progress, Stall, age, observe, stalled
from supervisor.uffd import kernel
from supervisor.uffd.handle import Policy
from supervisor.uffd.page_map import OLDEST_UNANSWERED_NS
from tests.harness.fork_in_miniature import TIMEOUT, Fork
from tests.harness.page_maps import page_map_at
from tests.harness.plain_outputs import PLAIN
from tests.harness.waiting import until


@pytest.mark.parametrize(
    ("looks", "seconds"),
    [
        ([(True, 0, 10.0), (True, 0, 11.5)], 1.5),
        ([(True, 0, 10.0), (True, 1, 11.5)], 0.0),
        ([(True, 0, 10.0), (False, 1, 11.5)], 0.0),
        ([(False, 0, 10.0), (True, 0, 11.0), (True, 0, 12.0)], 1.0),
        ([(True, 0, 10.0), (False, 0, 11.0), (True, 0, 12.0)], 0.0),
    ],
)
def test_a_wait_counts_from_the_look_since_which_nothing_was_answered(
    looks: list[tuple[bool, int, float]], seconds: float
) -> None:
    stall = Stall()
    for waits, answered, now in looks:
        stall = observe(stall, waits, answered, now)
    assert age(stall, looks[-1][2]) == seconds


IDLE = Progress(7, ran=10.0, delayed=2.0, major_faults=5, state="S")
BEGUN = Stall(10.0, 3, failed=1, looks=4, server=IDLE)


@pytest.mark.parametrize(
    ("stall", "waited", "server", "failed", "found"),
    [
        (BEGUN, 0.9, None, 9, None),
        (BEGUN, 1.1, IDLE, 1, "stuck"),
        (BEGUN, 1.1, None, 1, "stuck"),
        (BEGUN, 1.1, IDLE._replace(state="T"), 1, "stuck"),
        # Its answers fail, however busy it is.
        (BEGUN, 1.1, IDLE._replace(ran=11.1), 2, "stuck"),
        # It works; it wants to, and has no CPU; both in turn; it waits for the disk, or did.
        (BEGUN, 1.1, IDLE._replace(ran=10.6), 1, "slow"),
        (BEGUN, 1.1, IDLE._replace(delayed=2.9), 1, "slow"),
        (BEGUN, 1.1, IDLE._replace(ran=10.3, delayed=2.3), 1, "slow"),
        (BEGUN, 1.1, IDLE._replace(state="D"), 1, "slow"),
        (BEGUN, 1.1, IDLE._replace(state="R"), 1, "slow"),
        (BEGUN, 1.1, IDLE._replace(major_faults=6), 1, "slow"),
        # Questions of its supervisor are no work.
        (BEGUN, 1.1, IDLE._replace(ran=10.01, delayed=2.01), 1, "stuck"),
        # Who looks has not had the CPU either.
        (Stall(10.0, 3, looks=2, server=IDLE), 1.1, IDLE, 0, "slow"),
        # As long as this it waits for nobody who is only slow.
        (BEGUN, 10.0, IDLE._replace(ran=20.0), 1, "stuck"),
    ],
)
def test_who_waits_for_a_page_server_that_goes_on_is_slow_and_else_it_is_stuck(
    stall: Stall, waited: float, server: Progress | None, failed: int, found: str | None
) -> None:
    assert stalled(stall, waited, server, failed) == found


def test_a_page_server_that_took_over_is_measured_from_its_own_beginning() -> None:
    stall = observe(observe(Stall(), True, 0, 10.0, IDLE), True, 0, 10.5, IDLE._replace(pid=8, ran=0.1))
    assert (stall.since, stall.server) == (10.0, IDLE._replace(pid=8, ran=0.1))


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the kernel has no schedstat")
async def test_a_page_server_that_has_not_had_the_cpu_is_told_from_one_that_sleeps() -> None:
    """On one CPU with a busy one, by the kernel's own count, a process of idle priority waits most of the time."""
    cpu = min(os.sched_getaffinity(0))
    spin = "while True: pass"
    command = ("taskset", "-c", str(cpu), "chrt")
    busy = [await asyncio.create_subprocess_exec(*command, "-o", "0", sys.executable, "-c", spin)]
    starved = await asyncio.create_subprocess_exec(*command, "-i", "0", sys.executable, "-c", spin)
    asleep = await asyncio.create_subprocess_exec("sleep", "infinity")
    try:
        await until(lambda: (seen := progress(starved.pid)) is not None and seen.ran + seen.delayed > 0.2)
        begun = {one.pid: progress(one.pid) for one in (starved, asleep)}
        before = time.monotonic()
        await until(lambda: _went_on(begun[starved.pid], progress(starved.pid)) > 1.0)
        waited = time.monotonic() - before
        found = {
            pid: stalled(Stall(before, 0, looks=9, server=server), max(waited, 1.0), progress(pid), 0)
            for pid, server in begun.items()
        }
        assert found == {starved.pid: "slow", asleep.pid: "stuck"}
    finally:
        for process in (*busy, starved, asleep):
            process.kill()
            await process.wait()


def _went_on(before: Progress | None, after: Progress | None) -> float:
    assert before is not None and after is not None
    return after.ran + after.delayed - before.ran - before.delayed


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1))
def test_a_guest_that_does_not_wait_is_never_stalled(looks: list[tuple[bool, int]]) -> None:
    stall = Stall()
    for moment, (waits, answered) in enumerate(looks):
        stall = observe(stall, waits, answered, float(moment))
        if not waits:
            assert age(stall, float(moment)) == 0.0


def test_a_thread_in_a_fault_that_nobody_answers_is_seen() -> None:
    memory = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    uffd = kernel.userfaultfd(kernel.O_CLOEXEC | kernel.UFFD_USER_MODE_ONLY)
    try:
        kernel.api(uffd, 0)
        kernel.register(uffd, address, 4096)
        assert not waits_for_page(os.getpid())
        # A function of libc, called without the GIL, so that the fault stops its own thread only.
        arguments = (ctypes.c_void_p(address), b"\0", ctypes.c_size_t(1))
        toucher = threading.Thread(target=ctypes.CDLL(None).memcmp, args=arguments)
        toucher.start()
        os.read(uffd, kernel.MESSAGE_BYTES)
        # The message can be read a moment before the thread is asleep.
        deadline = time.monotonic() + 10
        while not waits_for_page(os.getpid()) and time.monotonic() < deadline:
            os.sched_yield()
        assert waits_for_page(os.getpid())
        kernel.zeropage(uffd, address, 4096)
        toucher.join()
        assert not waits_for_page(os.getpid())
    finally:
        os.close(uffd)


async def test_a_guest_that_its_page_server_knows_to_wait_is_told_before_its_turn(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("supervisor.telemetry.sampler.PROCESSES_PER_SAMPLE", 1)
    reports: asyncio.Queue[tuple[str, str, str | None]] = asyncio.Queue()
    inventory = Inventory(Registry(Layout(run_dir, run_dir)), lambda _: None)
    servers = PageServers(inventory, Policy(), PLAIN, lambda *_, **__: None)
    telemetry = Sampler(inventory, servers, lambda _: None, _is_ready, lambda *told, **_: reports.put_nowait(told))
    (run_dir / "expected").write_bytes(bytes(4096))
    fork = await Fork.start(run_dir / "nobody", run_dir / "expected", [4096])
    try:
        fork.tell("walk", 0, 1)
        # Its turn would come after theirs: four a second.
        for number in range(10 * int(TIMEOUT)):
            quiet = _running(f"vm{number}", fork.pid)
            inventory.instances[quiet.id] = quiet.model_copy(update={"attached": False, "memory_backend": None})
        stuck = _running("stuck", fork.pid)
        inventory.instances[stuck.id] = stuck
        (run_dir / "pages").mkdir()
        pages = page_map_at(inventory.layout.page_map(stuck.id), 4096, 1)
        pages.counters[OLDEST_UNANSWERED_NS] = time.monotonic_ns()
        sampling = asyncio.create_task(telemetry.run())
        level, message, instance_id = await asyncio.wait_for(reports.get(), TIMEOUT)
        assert (level, instance_id) == ("alarm", "stuck")
        assert message.startswith("stuck: its guest has waited 1.")
        telemetry.stop()
        await sampling
        pages.close()
    finally:
        await fork.kill()


async def test_what_a_failed_sample_saw_is_told_by_the_next(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inventory = Inventory(Registry(Layout(run_dir, run_dir)), lambda _: None)
    servers = PageServers(inventory, Policy(), PLAIN, lambda *_, **__: None)
    telemetry = Sampler(inventory, servers, lambda _: None, _is_ready, lambda *_, **__: None)
    # Of which nothing is new at the second look.
    idle = await asyncio.create_subprocess_exec("sleep", "infinity")
    try:
        inventory.instances["one"] = _running("one", idle.pid)
        await telemetry.sample()
        inventory.instances["two"] = _running("two", idle.pid)
        inventory.publisher.changes += 1
        with monkeypatch.context() as patched:
            patched.setattr("psutil.virtual_memory", _no_descriptor)
            with pytest.raises(OSError, match="Too many open files"):
                await telemetry.sample()
        assert telemetry.statistics.keys() == {"one"}
        await telemetry.sample()
        assert telemetry.statistics["two"].rss_bytes > 0
    finally:
        idle.kill()
        await idle.wait()


def _no_descriptor() -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


def test_an_answer_is_told_by_more_answers_and_not_by_a_new_count() -> None:
    """A page server that takes over without the page map of the one before counts from nothing."""
    stall = observe(observe(Stall(), True, 7, 10.0), True, 0, 12.0)
    assert age(stall, 12.0) == 2.0
    assert age(observe(stall, True, 1, 12.5), 12.5) == 0.0


async def _is_ready(_: str) -> None:
    raise AssertionError("nothing here is on its way to Running")


def _running(instance_id: str, pid: int) -> InstanceRecord:
    return InstanceRecord(
        id=instance_id,
        name=instance_id,
        image="linux",
        state=State.RUNNING,
        hypervisor="firecracker",
        size_bytes=4096,
        vcpus=1,
        created_at=datetime.now(UTC),
        attached=True,
        template_id="template",
        memory_backend="uffd",
        process=ProcessIdentity(pid=pid, start_time=0),
    )
