"""Fault-around: the window that a row of faults leads to."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.uffd.fault_around import Window, adapted, after_answer, aligned

MOST = 64


def follow(faults: list[int], window: Window, most: int = MOST) -> Window:
    """The window after these faults, each answered with its whole window; what an answer has covered faults no more."""
    present: set[int] = set()
    for page in faults:
        if page in present:
            continue
        pages = adapted(window, page, most)
        start, end = aligned(page, pages)
        present.update(range(start, end))
        window = after_answer(window, pages, start, end)
    return window


@pytest.mark.parametrize(
    ("what", "window", "page", "pages"),
    [
        ("the first fault has nothing to compare with", Window(64), 1000, 64),
        ("beside the answer, upwards", Window(8, ((0, 8),)), 8, 16),
        ("beside the answer, downwards", Window(8, ((64, 72),)), 63, 16),
        ("inside an answer that was not whole", Window(8, ((64, 72),)), 66, 16),
        ("never more than the most", Window(64, ((0, 64),)), 64, 64),
        ("near, upwards", Window(8, ((0, 8),)), 15, 8),
        ("near, downwards", Window(8, ((64, 72),)), 56, 8),
        ("far, upwards", Window(8, ((0, 8),)), 16, 4),
        ("far, downwards", Window(8, ((64, 72),)), 55, 4),
        ("never less than one", Window(1, ((0, 1),)), 100, 1),
        ("beside a single page", Window(1, ((0, 1),)), 1, 2),
        ("beside an answer of long ago", Window(4, ((900, 904), (500, 504), (0, 4))), 4, 8),
        ("a window larger than the policy's", Window(64, ((0, 64),)), 70, 16),
    ],
)
def test_a_window_doubles_beside_an_answer_stays_near_one_and_halves_far_off(
    what: str, window: Window, page: int, pages: int
) -> None:
    most = 16 if "policy" in what else MOST
    assert adapted(window, page, most) == pages, what


def test_a_walk_of_either_direction_has_the_whole_window_and_scattered_faults_a_page_each() -> None:
    assert follow(list(range(4096)), Window(MOST)).pages == MOST
    assert follow(list(range(4096)), Window(1)).pages == MOST
    assert follow(list(range(4095, -1, -1)), Window(1)).pages == MOST
    assert follow([place * 1000 for place in range(20)], Window(MOST)).pages == 1


def test_several_walks_at_once_are_walks() -> None:
    faults = [start + step for step in range(512) for start in (0, 100_000, 200_000, 300_000)]
    assert follow(faults, Window(1)).pages == MOST


def test_answers_that_touch_are_one_and_few_are_remembered() -> None:
    window = after_answer(Window(4, ((8, 12), (0, 4))), 4, 4, 8)
    assert window.answered == ((0, 12),)
    for start in range(0, 100_000, 1000):
        window = after_answer(window, 4, start, start + 4)
    assert len(window.answered) == 8
    assert window.answered[0] == (99_000, 99_004)


@given(st.lists(st.integers(0, 2000), max_size=100), st.integers(1, 100), st.integers(1, 100))
def test_whatever_the_faults_the_window_is_within_its_bounds_and_has_the_page(
    faults: list[int], first: int, most: int
) -> None:
    window = Window(min(first, most))
    for page in faults:
        pages = adapted(window, page, most)
        assert 1 <= pages <= most
        assert pages <= 2 * window.pages
        assert pages >= window.pages // 2
        start, end = aligned(page, pages)
        assert end - start == pages
        assert start <= page < end
        window = after_answer(window, pages, start, end)
        runs = sorted(window.answered)
        assert all(left[1] < right[0] for left, right in pairwise(runs))
