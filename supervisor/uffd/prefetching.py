"""Prefetching: the hot pages of one fork, put into its memory while no demand fault of any fork waits."""

import time
from collections.abc import Callable, Iterable, Iterator

from supervisor.system.loop import Loop
from supervisor.uffd.hot_pages import Run
from supervisor.uffd.page_map import COPY_ERRORS, PREFETCH_FINISHED, PREFETCH_NS, PageMap
from supervisor.uffd.pager import GONE_ERRORS, Pager

SLICE_BYTES = 512 << 10
"""What is copied at once: a demand fault waits for no more than one such copy."""
_RETRY_SECONDS = 0.001


class Prefetching:
    """One fork's prefetch, in the order of the runs; it begins when it is made, and `stop` ends it early."""

    def __init__(
        self, loop: Loop, pager: Pager, pages: PageMap, runs: Iterable[Run], page_size: int, on_end: Callable[[], None]
    ) -> None:
        """`on_end` is called from the loop when all is there, or what is left had better come by demand faults."""
        self._loop = loop
        self._pager = pager
        self._counters = pages.counters
        self._on_end = on_end
        self._slices = slices(runs, max(SLICE_BYTES // page_size, 1))
        self._slice = next(self._slices, [])
        self._began_ns = time.monotonic_ns()
        self._stopped = False
        loop.add_idle(self._work)

    def stop(self) -> None:
        """Prefetch no more, and tell nobody."""
        self._stopped = True

    def _work(self) -> bool:
        """Idle work: one slice; False when there is no more to do now."""
        if self._stopped:
            return False
        try:
            self._pager.prefetch(self._slice)
        except BlockingIOError:
            self._loop.call_later(_RETRY_SECONDS, lambda: self._loop.add_idle(self._work))
            return False
        except OSError as error:
            # The list is a guess: what is left of it comes by demand faults, and those have their own rules.
            self._counters[COPY_ERRORS] += not isinstance(error, GONE_ERRORS)
            self._end()
            return False
        self._slice = next(self._slices, [])
        if not self._slice:
            self._end()
        return bool(self._slice)

    def _end(self) -> None:
        self._counters[PREFETCH_NS] = time.monotonic_ns() - self._began_ns
        self._counters[PREFETCH_FINISHED] = 1
        self._on_end()


def slices(runs: Iterable[Run], most_pages: int) -> Iterator[list[tuple[int, int]]]:
    """The runs in their order, cut and gathered into lists of `most_pages` pages each, the last of fewer."""
    gathered: list[tuple[int, int]] = []
    room = most_pages
    for start, end in runs:
        while start < end:
            stop = min(start + room, end)
            gathered.append((start, stop))
            room -= stop - start
            start = stop
            if not room:
                yield gathered
                gathered, room = [], most_pages
    if gathered:
        yield gathered
