"""The pager's rules for the kernel's errors, each provoked with a real userfaultfd on this process's own memory."""

import os
import platform

import pytest

from supervisor.uffd import kernel, page_map, pager
from supervisor.uffd.page_map import ABSENT, FAULT_AROUND, FAULTED, PREFETCHED, REMOVED, ZERO
from tests.harness.pager_bench import PAGE, PAGES, SIZE, Bench, join, wait_until_held

MADVISE = {"x86_64": "28", "aarch64": "233"}.get(platform.machine(), "")
FAULT = "-1"
pytestmark = pytest.mark.usefixtures("userfaultfd")


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
