"""Merging: the list that several recordings make, against the plain definition of it, and the length of its steps."""

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.uffd.hot_pages import CountedRun, HotPages, Run, mismatch, pages_in
from supervisor.uffd.merging import MOST_RECORDINGS, finished, merging, wanting

PAGES = 1000
MOST = 1 << 20
TOUCHED = st.lists(st.integers(0, PAGES - 1), max_size=200)
RECORDINGS = st.lists(TOUCHED, max_size=4)


def recorded(*recordings: list[int], most: int = MOST) -> HotPages:
    """The list that these recordings make."""
    hot = HotPages((), 4096)
    for touched in recordings:
        hot = finished(merging(hot, touched, most, PAGES))
    return hot


def wanted(hot: HotPages, share: float) -> tuple[Run, ...]:
    """What of a list is prefetched."""
    return finished(wanting(hot, share))


def counts_of(hot: HotPages) -> dict[int, int]:
    """In how many recordings each page is, in the list's order."""
    return {page: run.recordings for run in hot.runs for page in range(run.start, run.end)}


@given(TOUCHED)
def test_runs_cover_the_touched_pages_once_and_in_the_order_of_their_first_touch(touched: list[int]) -> None:
    runs = wanted(recorded(touched), 1.0)
    pages = [page for run in runs for page in range(run.start, run.end)]
    assert sorted(pages) == sorted(set(touched))
    assert pages_in(runs) == len(pages)
    ends = {run.end for run in runs}
    assert not ends & {run.start for run in runs}, "two runs that touch are one"
    first_touches = [min(touched.index(page) for page in range(run.start, run.end)) for run in runs]
    assert first_touches == sorted(first_touches)


@given(RECORDINGS)
def test_every_page_has_the_count_of_the_recordings_that_touched_it(recordings: list[list[int]]) -> None:
    hot = recorded(*recordings)
    assert hot.recordings == len(recordings)
    pages = {page for touched in recordings for page in touched}
    assert counts_of(hot) == {page: sum(page in touched for touched in recordings) for page in pages}
    runs = sorted(hot.runs)
    assert not any((left.end, left.recordings) == right[::2] for left in runs for right in runs), "longest runs"
    assert mismatch(hot, (), 4096, PAGES) is None
    for share in (0.0, 0.25, 0.5, 1.0):
        found = {page for run in wanted(hot, share) for page in range(run.start, run.end)}
        assert found == {page for page in pages if counts_of(hot)[page] >= share * len(recordings)}


@pytest.mark.parametrize(
    ("recordings", "runs"),
    [
        ([[]], []),
        ([[7, 100, 8, 101, 6, 7]], [(6, 9, 1), (100, 102, 1)]),
        ([[50, 51, 10], [11, 50, 12, 10]], [(50, 51, 2), (51, 52, 1), (10, 11, 2), (11, 13, 1)]),
        ([[1, 2, 3], [1, 2, 3, 4]], [(1, 4, 2), (4, 5, 1)]),
        ([[1, 2, 3], [1, 2, 3, 4], [4]], [(1, 5, 2)]),
        ([[0, PAGES - 1], [PAGES - 1, PAGES - 1]], [(0, 1, 1), (PAGES - 1, PAGES, 2)]),
    ],
)
def test_an_older_recording_comes_first_and_counts_keep_runs_apart(
    recordings: list[list[int]], runs: list[tuple[int, int, int]]
) -> None:
    assert recorded(*recordings).runs == tuple(CountedRun(*run) for run in runs)


def test_what_is_wanted_ignores_counts_beyond_its_share() -> None:
    hot = recorded([50, 51, 10], [11, 50, 12, 10])
    assert wanted(hot, 0.5) == (Run(50, 52), Run(10, 13))
    assert wanted(hot, 0.6) == (Run(50, 51), Run(10, 11))


def test_of_too_many_pages_the_least_touched_go_and_of_those_the_last() -> None:
    assert counts_of(recorded([1, 3, 5], [5, 7, 9], most=4)) == {1: 1, 3: 1, 5: 2, 7: 1}
    assert counts_of(recorded([1, 3, 5], [1, 3, 5], [7], most=2)) == {1: 2, 3: 2}


def test_a_new_recording_forgets_what_was_said_of_the_old_list() -> None:
    hot = finished(merging(recorded([5, 6])._replace(held_back=40, touched=30), [5], MOST, PAGES))
    assert (hot.recordings, hot.held_back, hot.touched) == (2, 0, 0)


def test_recordings_beyond_the_most_are_ignored() -> None:
    hot = HotPages((), 4096, (CountedRun(1, 2, MOST_RECORDINGS - 1),), MOST_RECORDINGS - 1)
    full = finished(merging(hot, [1], MOST, PAGES))
    assert full == HotPages((), 4096, (CountedRun(1, 2, MOST_RECORDINGS),), MOST_RECORDINGS)
    assert finished(merging(full, [1, 2], MOST, PAGES)) is full


def test_a_large_list_is_merged_in_many_short_steps() -> None:
    pages = 1 << 18
    touched = random.Random(1).sample(range(pages), pages // 4)
    steps, began = 0, time.perf_counter()
    hot = HotPages((), 4096)
    for _ in range(2):
        work = merging(hot, touched, pages, pages)
        while True:
            try:
                next(work)
            except StopIteration as stop:
                hot = stop.value
                break
            steps += 1
    took = time.perf_counter() - began
    assert hot.recordings == 2
    assert sum(run.end - run.start for run in hot.runs) == len(touched)
    assert steps > 200, "a step is a few hundred microseconds, and demand faults come between them"
    assert took < 10
