"""Sums of page counters over all forks that there ever were under this supervisor: they never fall. Pure."""

from collections.abc import Iterable
from typing import Final, NamedTuple

from supervisor.uffd.page_map import LATENCY_BUCKETS, PageCounters

SUMMED: Final = (
    "faults", "fault_around_pages", "prefetched_pages", "prefetched_bytes", "prefetch_seconds", "residual_faults",
    "copied_bytes", "zero_pages", "removed_pages", "copy_errors", "fault_seconds",
)  # fmt: skip
"""The fields of PageCounters that are summed up."""


class PageSums(NamedTuple):
    """What page servers have done."""

    counters: dict[str, float]
    """By SUMMED."""
    latency_counts: tuple[int, ...]
    """Faults by service time, as in PageCounters."""


_NOTHING: Final = PageSums(dict.fromkeys(SUMMED, 0), (0,) * LATENCY_BUCKETS)


def _of(counters: PageCounters) -> PageSums:
    return PageSums({name: getattr(counters, name) for name in SUMMED}, counters.latency_counts)


def _sum(all_of_them: Iterable[PageSums]) -> PageSums:
    every = list(all_of_them)
    counters = {name: sum(one.counters[name] for one in every) for name in SUMMED}
    return PageSums(counters, tuple(map(sum, zip(*(one.latency_counts for one in every), strict=True))))


class PageTotals:
    """Those of forks that are gone, and the last that was seen of each that is there."""

    def __init__(self) -> None:
        self._gone = _NOTHING
        self._last: dict[str, PageSums] = {}

    def see(self, instance_id: str, counters: PageCounters) -> None:
        """Take a fork's counters; where one has fallen they have begun anew, as those of a map that was made again."""
        last, now = self._last.get(instance_id), _of(counters)
        if last is not None and any(now.counters[name] < last.counters[name] for name in SUMMED):
            self.end(instance_id)
        self._last[instance_id] = now

    def end(self, instance_id: str) -> None:
        """Keep what a fork had when it was looked at last; what came after that is lost."""
        last = self._last.pop(instance_id, None)
        if last is not None:
            self._gone = _sum((self._gone, last))

    def sums(self) -> PageSums:
        """Return the sums over all."""
        return _sum((self._gone, *self._last.values()))
