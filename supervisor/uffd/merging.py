"""Merging: what several recordings make of the hot-page list. Pure.

The lists of large guests have a hundred thousand pages and more, and who merges them has faults to answer: the work is
given as generators that stop every few hundred microseconds, and return the result at their end.
"""

from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeVar

from supervisor.uffd.hot_pages import CountedRun, HotPages, Run

MOST_RECORDINGS = 255
"""A page's count is a byte here; further recordings are ignored."""

_STEP = 256
"""Pages or runs between two stops."""
_LOOK = 64
"""Pages that are looked at first for where a run begins or ends; twice as many each time that it does not."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Steps = Generator[None, None, Result]


def merging(hot: HotPages, touched: Sequence[int], most_pages: int, page_count: int) -> Steps[HotPages]:
    """The list with one recording more, given in touch order; of too many pages the least and the last touched go.

    `page_count` is the image's. What the forks made of the old list does not hold for the new one, and is forgotten.
    """
    if hot.recordings >= MOST_RECORDINGS:
        return hot
    counts = bytearray(page_count)
    order: list[int] = []
    for runs in _pieces(hot.runs):
        for start, end, count in runs:
            counts[start:end] = bytes((count,)) * (end - start)
            for low in range(start, end, _STEP):
                order += range(low, min(low + _STEP, end))
                if low > start:
                    yield
        yield
    met = bytearray(page_count)
    for pages in _pieces(touched):
        for page in pages:
            if not met[page]:
                met[page] = 1
                counts[page] += 1
                if counts[page] == 1:
                    order.append(page)
        yield
    yield from _forgetting(counts, order, len(order) - most_pages)
    runs = yield from _ordering(counts, order, CountedRun)
    return HotPages(hot.identity, hot.page_size, runs, hot.recordings + 1)


def wanting(hot: HotPages, share: float) -> Steps[tuple[Run, ...]]:
    """The longest runs of the pages that at least this share of the recordings touched, in the list's order."""
    least = share * hot.recordings
    wanted = bytearray(max((run.end for run in hot.runs), default=0))
    firsts = []
    for runs in _pieces(hot.runs):
        for start, end, count in runs:
            if count >= least:
                wanted[start:end] = b"\1" * (end - start)
                firsts.append(start)
        yield
    return (yield from _ordering(wanted, firsts, lambda start, end, _: Run(start, end)))


def finished(steps: Steps[Result]) -> Result:
    """The result of steps that are taken now."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: Result = stop.value
            return result


def _forgetting(counts: bytearray, order: Sequence[int], excess: int) -> Steps[None]:
    """Set the counts of `excess` pages to 0: the lowest first, and of equal ones those latest in the order."""
    count = 1
    while excess > 0:
        for pages in _pieces(order[::-1]):
            for page in pages:
                if counts[page] == count and excess > 0:
                    counts[page] = 0
                    excess -= 1
            yield
        count += 1


def _ordering(
    counts: bytearray, order: Sequence[int], make: Callable[[int, int, int], Item]
) -> Steps[tuple[Item, ...]]:
    """The longest runs of pages of one count, in the order of the first page of each in `order`; uses up the counts."""
    found = []
    for pages in _pieces(order):
        for page in pages:
            count = counts[page]
            if count:
                start, end = _run_at(counts, page)
                counts[start:end] = bytes(end - start)
                found.append(make(start, end, count))
        yield
    return tuple(found)


def _run_at(counts: bytearray, page: int) -> tuple[int, int]:
    """The longest run [start, end) around a page whose pages have its count."""
    same = counts[page : page + 1]
    start = end = page
    size = _LOOK
    while start and counts[start - 1] == same[0]:
        low = max(start - size, 0)
        start = low + len(counts[low:start].rstrip(same))
        size *= 2
    size = _LOOK
    while end < len(counts) and counts[end] == same[0]:
        ahead = counts[end : end + size]
        end += len(ahead) - len(ahead.lstrip(same))
        size *= 2
    return start, end


def _pieces(items: Sequence[Item]) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), _STEP):
        yield items[start : start + _STEP]
