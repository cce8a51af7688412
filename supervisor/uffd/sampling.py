"""Sampling: some pages of the hot-page list are held back from a fork; what it asks for of them tells the list's worth.

Whether a page that was prefetched is ever touched cannot be seen from outside of the guest.
"""

import zlib
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from supervisor.uffd.hot_pages import Run
from supervisor.uffd.page_map import FAULT_AROUND

STRATUM_PAGES = 251
"""One page in so many of the list, in its order, is held back: 0.4% of it, and none of a shorter list."""


class Plan(NamedTuple):
    """What one fork is to be given of the hot-page list, in its order, and what is held back from it."""

    runs: tuple[Run, ...] = ()
    held_back: frozenset[int] = frozenset()


class HeldBack:
    """What becomes of the pages that were held back from one fork."""

    def __init__(self, pages: frozenset[int]) -> None:
        self._pages = pages
        self._touched: set[int] = set()

    def ask(self, pages: Iterable[int]) -> None:
        """Note pages that the fork faulted on."""
        self._touched.update(self._pages.intersection(pages))

    def judge(self, states: Sequence[int]) -> tuple[int, int]:
        """How many pages were held back, and how many of those were touched, by the states of all pages.

        A page that came with the fault of a neighbour is left out: it was not asked for and never will be.
        """
        around = sum(states[page] == FAULT_AROUND for page in self._pages - self._touched)
        return len(self._pages) - around, len(self._touched)


def hold_back(runs: Sequence[Run], seed: str) -> Plan:
    """One page at random of each stratum of the list is held back; the same seed gives the same sample."""
    total = sum(end - start for start, end in runs)
    strata = range(0, total - STRATUM_PAGES + 1, STRATUM_PAGES)
    places = [stratum + zlib.crc32(f"{seed} {stratum}".encode()) % STRATUM_PAGES for stratum in strata]
    return _without(runs, places)


def _without(runs: Sequence[Run], places: Collection[int]) -> Plan:
    """The plan that leaves out the pages at these places of the list, which ascend."""
    kept: list[Run] = []
    held_back: list[int] = []
    left = iter(places)
    place = next(left, -1)
    passed = 0
    for start, end in runs:
        first = start
        while passed <= place < passed + end - start:
            page = start + place - passed
            held_back.append(page)
            if first < page:
                kept.append(Run(first, page))
            first = page + 1
            place = next(left, -1)
        if first < end:
            kept.append(Run(first, end))
        passed += end - start
    return Plan(tuple(kept), frozenset(held_back))
