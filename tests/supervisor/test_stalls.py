"""Guests that wait too long for a page are found from outside."""

import asyncio
import ctypes
import errno
import mmap
import os
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
from supervisor.telemetry.process_usage import waits_for_page
from supervisor.telemetry.sampler import Sampler
from supervisor.telemetry.stalls import Stall, age, observe
from supervisor.uffd import kernel
from supervisor.uffd.handle import Policy
from supervisor.uffd.page_map import OLDEST_UNANSWERED_NS, PageMap
from tests.harness.fork_in_miniature import TIMEOUT, Fork
from tests.harness.plain_outputs import PLAIN


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
        pages = PageMap.create(inventory.layout.page_map(stuck.id), 4096, 1)
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
