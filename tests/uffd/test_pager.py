"""The pager's rules for the kernel's errors, each provoked with a real userfaultfd on this process's own memory."""

import ctypes
import os
import platform
import random
import select
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from supervisor.uffd import kernel, page_map, pager
from supervisor.uffd.handshake import Mapping
from supervisor.uffd.memory_image import MemoryImage
from supervisor.uffd.page_map import ABSENT, FAULT_AROUND, FAULTED, PREFETCHED, REMOVED, ZERO, PageMap
from supervisor.uffd.pager import Pager

PAGE = 4096
PAGES = 32
SIZE = PAGES * PAGE
TIMEOUT = 20.0
MADV_DONTNEED = 4
MADVISE = {"x86_64": "28", "aarch64": "233"}.get(platform.machine(), "")
FAULT = "-1"

pytestmark = pytest.mark.usefixtures("userfaultfd")

libc = ctypes.CDLL(None)
libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
libc.memmove.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
libc.memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
libc.memset.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t)


class Bench:
    """Memory under a userfaultfd, the image that it is to hold, and a pager between them."""

    def __init__(self, folder: Path) -> None:
        self.content = os.urandom(SIZE)
        self.path = folder / "mem"
        self.path.write_bytes(self.content)
        self.image = MemoryImage([self.path], SIZE)
        self.map = PageMap.create(folder / "map", PAGE, PAGES)
        self.memory, self.base = kernel.anonymous_memory(SIZE)
        self.uffd = kernel.userfaultfd(kernel.O_CLOEXEC | kernel.O_NONBLOCK | kernel.UFFD_USER_MODE_ONLY)
        kernel.api(self.uffd, kernel.UFFD_FEATURE_EVENT_REMOVE)
        kernel.register(self.uffd, self.base, SIZE)
        self.pager = self.new_pager()
        self.threads: list[threading.Thread] = []

    def new_pager(self, *, around: int = 8, adaptive: bool = False) -> Pager:
        """A pager for all of the memory."""
        made = Pager(self.uffd, [Mapping(self.base, SIZE, 0)], self.image, self.map, PAGE)
        made.fault_around(around, adaptive=adaptive)
        return made

    def touch(self, page: int) -> tuple[threading.Thread, ctypes.Array[ctypes.c_char]]:
        """Read a page in a thread, which waits for its fault to be answered."""
        found = ctypes.create_string_buffer(PAGE)
        return self._run(lambda: libc.memmove(found, self.base + page * PAGE, PAGE)), found

    def remove(self, start: int, end: int) -> threading.Thread:
        """Give back pages in a thread, which waits for its event to be read."""
        return self._run(lambda: libc.madvise(self.base + start * PAGE, (end - start) * PAGE, MADV_DONTNEED))

    def wait_for_message(self) -> None:
        """Wait until the userfaultfd can be read."""
        readable, _, _ = select.select([self.uffd], [], [], TIMEOUT)
        assert readable

    def page(self, page: int) -> bytes:
        """What a page should hold."""
        return self.content[page * PAGE : (page + 1) * PAGE]

    def counter(self, index: int) -> int:
        """One of the counters."""
        return self.map.counters[index]

    def _run(self, work: Callable[[], object]) -> threading.Thread:
        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        self.threads.append(thread)
        return thread

    def close(self) -> None:
        """Let everybody go: a thread that still waits sees zeros."""
        kernel.unregister(self.uffd, self.base, SIZE)
        os.close(self.uffd)
        for thread in self.threads:
            thread.join(TIMEOUT)
        self.map.close()
        self.image.close()


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A bench whose threads end with the test."""
    made = Bench(tmp_path)
    yield made
    made.close()


def join(*threads: threading.Thread) -> None:
    """Wait for threads that nothing holds any more."""
    for thread in threads:
        thread.join(TIMEOUT)
        assert not thread.is_alive()


def wait_until_held(thread: threading.Thread, call: str) -> None:
    """Wait until a thread sleeps in this system call (/proc/pid/task/tid/syscall; -1 is none, a page fault)."""
    path = Path(f"/proc/self/task/{thread.native_id}/syscall")
    deadline = time.monotonic() + TIMEOUT
    while path.read_text().split()[0] != call:
        assert time.monotonic() < deadline
        os.sched_yield()


def test_a_fault_is_answered_with_its_window(bench: Bench) -> None:
    thread, found = bench.touch(10)
    bench.wait_for_message()
    assert bench.pager.serve() == [10]
    join(thread)
    assert found.raw == bench.page(10)
    assert bench.map.states(7, 17) == bytes([ABSENT] + [FAULT_AROUND] * 2 + [FAULTED] + [FAULT_AROUND] * 5 + [ABSENT])
    assert bench.pager.serve() == [], "a read that finds nothing is EAGAIN, and no error"


def test_a_page_that_is_there_already_is_no_error_and_wakes_its_waiter(bench: Bench) -> None:
    for page in (9, 12):
        assert kernel.copy(bench.uffd, bench.base + page * PAGE, bench.image.locate(0)[0] + page * PAGE, PAGE) == PAGE
    thread, found = bench.touch(10)
    bench.wait_for_message()
    bench.pager.serve()
    join(thread)
    assert found.raw == bench.page(10)
    assert bench.map.states(8, 16) == bytes(
        [FAULT_AROUND, FAULTED, FAULTED, FAULT_AROUND, FAULTED, FAULT_AROUND, FAULT_AROUND, FAULT_AROUND]
    )
    assert bench.counter(page_map.PRESENT_PAGES) == 8
    assert bench.counter(page_map.COPY_ERRORS) == 0


def test_faults_of_one_page_are_all_answered(bench: Bench) -> None:
    threads = [bench.touch(10) for _ in range(4)]
    for thread, _ in threads:
        wait_until_held(thread, FAULT)
    assert bench.pager.serve() == [10] * 4
    join(*(thread for thread, _ in threads))
    assert all(found.raw == bench.page(10) for _, found in threads)
    assert bench.counter(page_map.PRESENT_PAGES) == 8


@pytest.mark.parametrize("around", [1, 8])
def test_a_fault_under_a_pending_event_is_put_off_and_answered_after_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, around: int
) -> None:
    # One message a read and one read a slice: the kernel gives faults before events, so that the removal stays pending.
    monkeypatch.setattr(pager, "_BATCH_MESSAGES", 1)
    monkeypatch.setattr(pager, "_SLICE_NS", 0)
    bench.pager = bench.new_pager(around=around)
    thread, found = bench.touch(10)
    bench.wait_for_message()
    remover = bench.remove(20, 22)
    wait_until_held(remover, MADVISE)
    assert bench.pager.serve() == [10]
    assert list(bench.pager.deferred) == [10]
    assert bench.counter(page_map.DEFERRED_FAULTS) == 1
    assert bench.counter(page_map.OLDEST_UNANSWERED_NS) == bench.pager.deferred[10]
    assert thread.is_alive()
    with pytest.raises(BlockingIOError):
        bench.pager.prefetch([(0, 4)])

    assert bench.pager.serve() == []
    join(remover)
    bench.pager.retry()
    join(thread)
    assert found.raw == bench.page(10)
    assert bench.pager.deferred == {}
    assert bench.counter(page_map.OLDEST_UNANSWERED_NS) == 0
    assert bench.counter(page_map.COPY_ERRORS) == 0
    assert bench.counter(page_map.FAULTS) == sum(bench.map.counters[page_map.LATENCY :]) == 1


@pytest.mark.parametrize("around", [1, 8])
def test_every_fault_is_answered_and_counted_whatever_comes_with_it(bench: Bench, around: int) -> None:
    bench.pager = bench.new_pager(around=around)
    waiting = [bench.touch(page) for page in (3, 10, 10, 20)]
    for thread, _ in waiting:
        wait_until_held(thread, FAULT)
    assert sorted(bench.pager.serve()) == [3, 10, 10, 20]
    join(*(thread for thread, _ in waiting))
    for page in (4, 5):
        thread, found = bench.touch(page)
        if around == 1:
            bench.wait_for_message()
            assert bench.pager.serve() == [page]
        join(thread)
        assert found.raw == bench.page(page)
    assert [found.raw for _, found in waiting] == [bench.page(page) for page in (3, 10, 10, 20)]
    answers = 6 if around == 1 else 4
    pages = 5 if around == 1 else 24
    assert bench.counter(page_map.FAULTS) == sum(bench.map.counters[page_map.LATENCY :]) == answers
    assert bench.counter(page_map.PRESENT_PAGES) == PAGES - bench.map.states(0, PAGES).count(ABSENT) == pages
    assert bench.counter(page_map.COPIED_BYTES) == pages * PAGE
    assert bench.counter(page_map.FAULT_NS) > 0
    assert bench.counter(page_map.RESIDUAL_FAULTS) == 0
    bench.map.counters[page_map.PREFETCH_FINISHED] = 1
    thread, _ = bench.touch(31)
    bench.wait_for_message()
    bench.pager.serve()
    join(thread)
    assert bench.counter(page_map.RESIDUAL_FAULTS) == 1


def test_a_page_alone_meets_the_same_objections(bench: Bench) -> None:
    bench.pager = bench.new_pager(around=1)
    remover = bench.remove(10, 11)
    bench.wait_for_message()
    assert bench.pager.serve() == []
    join(remover)
    thread, found = bench.touch(10)
    bench.wait_for_message()
    assert bench.pager.serve() == [10]
    join(thread)
    assert found.raw == bytes(PAGE)
    os.truncate(bench.path, 12 * PAGE)
    far, found = bench.touch(20)
    bench.wait_for_message()
    assert bench.pager.serve() == [20]
    assert list(bench.pager.deferred) == [20]
    assert (bench.counter(page_map.COPY_ERRORS), bench.counter(page_map.PRESENT_PAGES)) == (1, 1)
    bench.path.write_bytes(bench.content)
    bench.pager.retry()
    join(far)
    assert found.raw == bench.page(20)


def test_the_window_follows_the_faults_when_it_may(bench: Bench) -> None:
    bench.pager = bench.new_pager(around=8, adaptive=True)
    for page, arrived in (
        (0, range(0, 8)),
        (8, range(8, 16)),
        (30, range(28, 32)),
        (20, range(20, 22)),
        (22, range(22, 24)),
    ):
        thread, found = bench.touch(page)
        bench.wait_for_message()
        before = bench.map.states(0, PAGES)
        bench.pager.serve()
        join(thread)
        assert found.raw == bench.page(page)
        after = bench.map.states(0, PAGES)
        assert [place for place in range(PAGES) if before[place] != after[place]] == list(arrived)


def test_a_removal_that_was_read_with_a_fault_comes_first(bench: Bench) -> None:
    thread, found = bench.touch(10)
    bench.wait_for_message()
    remover = bench.remove(8, 12)
    wait_until_held(remover, MADVISE)
    assert bench.pager.serve() == [10]
    join(remover)
    bench.pager.retry()
    join(thread)
    assert found.raw == bytes(PAGE), "a page that was given back is zero and never the file's"
    assert bench.map.states(8, 12) == bytes([REMOVED, REMOVED, ZERO, REMOVED])


def test_prefetch_fills_what_is_absent_and_nothing_else(bench: Bench) -> None:
    bench.pager.prefetch([(4, 6)])
    remover = bench.remove(8, 10)
    bench.wait_for_message()
    bench.pager.serve()
    join(remover)
    bench.pager.prefetch([(0, 3), (3, 16)])
    assert bench.map.states(0, 17) == bytes([PREFETCHED] * 8 + [REMOVED] * 2 + [PREFETCHED] * 6 + [ABSENT])
    assert bench.counter(page_map.PREFETCHED_PAGES) == bench.counter(page_map.PRESENT_PAGES) == 14
    assert bench.counter(page_map.PREFETCHED_BYTES) == 14 * PAGE
    thread, found = bench.touch(8)
    bench.wait_for_message()
    bench.pager.serve()
    join(thread)
    assert found.raw == bytes(PAGE)


def test_a_truncated_layer_fails_its_own_pages_alone(bench: Bench) -> None:
    os.truncate(bench.path, 12 * PAGE)
    near, found = bench.touch(10)
    bench.wait_for_message()
    bench.pager.serve()
    join(near)
    assert found.raw == bench.page(10), "its window ends in the missing part"
    far, found = bench.touch(20)
    bench.wait_for_message()
    bench.pager.serve()
    assert list(bench.pager.deferred) == [20]
    assert bench.pager.failure is not None
    assert bench.pager.failure.strerror == "Bad address"
    assert bench.counter(page_map.COPY_ERRORS) == 1
    bench.path.write_bytes(bench.content)
    bench.pager.retry()
    join(far)
    assert found.raw == bench.page(20)


def test_memory_that_has_gone_is_told(bench: Bench) -> None:
    thread, _ = bench.touch(10)
    bench.wait_for_message()
    kernel.unregister(bench.uffd, bench.base, SIZE)
    join(thread)
    with pytest.raises(pager.GONE_ERRORS):
        bench.pager.prefetch([(0, 4)])
    kernel.register(bench.uffd, bench.base, SIZE)


def test_a_copy_that_stops_half_way_tells_how_far_it_went(bench: Bench) -> None:
    source = bench.image.locate(0)[0]
    assert kernel.copy(bench.uffd, bench.base + 3 * PAGE, source + 3 * PAGE, PAGE) == PAGE
    assert kernel.copy(bench.uffd, bench.base, source, 8 * PAGE) == 3 * PAGE
    with pytest.raises(FileExistsError):
        kernel.copy(bench.uffd, bench.base + 3 * PAGE, source + 3 * PAGE, 5 * PAGE)
    assert kernel.zeropage(bench.uffd, bench.base + 20 * PAGE, PAGE) == PAGE
    assert kernel.zeropage(bench.uffd, bench.base + 16 * PAGE, 8 * PAGE) == 4 * PAGE
    with pytest.raises(FileExistsError):
        kernel.zeropage(bench.uffd, bench.base + 20 * PAGE, PAGE)
    with pytest.raises(FileNotFoundError):
        kernel.copy(bench.uffd, kernel.anonymous_memory(PAGE)[1], source, PAGE)


def test_the_handshake_with_the_kernel_is_done_once(bench: Bench) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        kernel.api(bench.uffd, 0)


def test_a_userfaultfd_can_be_taken_out_of_a_process(bench: Bench) -> None:
    pidfd = os.pidfd_open(os.getpid())
    taken = kernel.pidfd_getfd(pidfd, bench.uffd)
    assert Path(f"/proc/self/fd/{taken}").readlink() == Path("anon_inode:[userfaultfd]")
    os.close(taken)
    with pytest.raises(OSError, match="Bad file descriptor"):
        kernel.pidfd_getfd(pidfd, 1 << 20)
    os.close(pidfd)


@pytest.mark.parametrize("unsupported", [0, 1 << 30], ids=["RWF_NOWAIT", "before Linux 6.10"])
def test_no_read_waits_when_the_other_side_makes_the_userfaultfd_blocking(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, unsupported: int
) -> None:
    # A flag that no kernel knows is refused as RWF_NOWAIT is where reads of a userfaultfd do not take it.
    monkeypatch.setattr(kernel, "_NO_WAIT", kernel._NO_WAIT | unsupported)
    bench.pager = bench.new_pager()
    thread, found = bench.touch(10)
    bench.wait_for_message()
    assert bench.pager.serve() == [10]
    join(thread)
    assert found.raw == bench.page(10)
    assert bench.pager.serve() == []
    os.set_blocking(bench.uffd, True)
    refused: list[OSError] = []

    def serve() -> None:
        try:
            bench.pager.serve()
        except OSError as error:
            refused.append(error)

    reader = threading.Thread(target=serve, daemon=True)
    reader.start()
    join(reader)
    assert [error.strerror for error in refused] == ["its VMM has made it blocking"]


def test_a_fault_that_is_raised_while_its_range_is_unregistered_does_not_wait_for_ever() -> None:
    """Some of so many tries meet the moment at which the kernel has woken all that wait, and lets one more in."""
    ahead = 1 << 20
    here, there = (kernel.anonymous_memory(ahead + PAGE) for _ in range(2))
    for _, base in (here, there):
        libc.memset(base, 0, ahead + PAGE)
    last = here[1] + ahead
    uffd = kernel.userfaultfd(kernel.O_CLOEXEC | kernel.O_NONBLOCK | kernel.UFFD_USER_MODE_ONLY)
    try:
        kernel.api(uffd, 0)
        for attempt in range(2000):
            libc.madvise(last, PAGE, MADV_DONTNEED)
            kernel.register(uffd, last, PAGE)
            # Comes to the page that is not there after a time that is another each time.
            before = random.Random(attempt).randrange(ahead)
            toucher = threading.Thread(target=libc.memcmp, args=(last - before, there[1] + ahead - before, before + 1))
            toucher.start()
            kernel.unregister(uffd, last, PAGE)
            toucher.join(TIMEOUT)
            assert not toucher.is_alive(), attempt
    finally:
        os.close(uffd)
