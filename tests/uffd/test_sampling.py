"""Sampling: what is held back of a list, and what is made of it."""

from hypothesis import given
from hypothesis import strategies as st

from supervisor.uffd.hot_pages import Run
from supervisor.uffd.page_map import ABSENT, FAULT_AROUND, FAULTED, PREFETCHED
from supervisor.uffd.sampling import STRATUM_PAGES, HeldBack, hold_back


def runs_of(lengths: list[int]) -> list[Run]:
    """Runs of these lengths, not touching, in a scrambled order."""
    runs, start = [], 7
    for length in lengths:
        runs.append(Run(start, start + length))
        start += length + 3
    return runs[1::2] + runs[::2]


def pages_of(runs: list[Run] | tuple[Run, ...]) -> list[int]:
    """All pages, in the list's order."""
    return [page for run in runs for page in range(run.start, run.end)]


@given(st.lists(st.integers(1, 600), max_size=12), st.text(max_size=8))
def test_one_page_of_each_stratum_is_held_back_and_the_rest_keeps_its_order(lengths: list[int], seed: str) -> None:
    runs = runs_of(lengths)
    pages = pages_of(runs)
    plan = hold_back(runs, seed)
    assert pages_of(plan.runs) == [page for page in pages if page not in plan.held_back]
    assert plan.held_back <= set(pages)
    assert len(plan.held_back) == len(pages) // STRATUM_PAGES
    assert len(plan.held_back) * 200 <= len(pages), "half a percent of the list is the bound of its residual faults"
    assert all(start < end for start, end in plan.runs)
    places = sorted(pages.index(page) for page in plan.held_back)
    assert [place // STRATUM_PAGES for place in places] == list(range(len(places)))
    assert hold_back(runs, seed) == plan


def test_every_page_has_its_turn() -> None:
    runs = [Run(0, 4 * STRATUM_PAGES)]
    turns = [0] * (4 * STRATUM_PAGES)
    for fork in range(4000):
        for page in hold_back(runs, f"fork{fork}").held_back:
            turns[page] += 1
    # 16 are expected of each: by the Poisson distribution fewer than 1 or more than 50 are one in millions.
    assert min(turns) >= 1
    assert max(turns) <= 50


def test_what_a_fork_asked_for_is_judged_and_what_came_with_a_neighbour_is_left_out() -> None:
    held_back = HeldBack(frozenset({1, 3, 5, 7}))
    held_back.ask([0, 1, 2])
    held_back.ask([1, 7, 8])
    states = [PREFETCHED, FAULTED, FAULTED, FAULT_AROUND, PREFETCHED, ABSENT, PREFETCHED, FAULTED, FAULTED]
    assert held_back.judge(states) == (3, 2)
