"""How long page faults waited for their answer: percentiles and a histogram of what a page server counts. Pure."""

import math
from collections.abc import Sequence
from typing import Final

from forktui.text.quantities import count, milliseconds
from forktui.view.glyphs import Glyphs
from forktui.view.sparkline import bars
from forktui.view.styled_lines import Line, left, right
from supervisor.models import PageMapFold

_BOUND_WIDTH: Final = 10
_COUNT_WIDTH: Final = 7
SLOW_US: Final = 10_000
"""Answers that take longer come from a disk that is slow, or a page server that has too much to do."""


def quantile_bound(fold: PageMapFold, share: float) -> int | None:
    """Within how many microseconds this share of the faults was answered; None where the last span has no bound."""
    wanted, seen = share * sum(fold.latency_counts), 0
    for bound, counted in zip(fold.latency_bounds_us, fold.latency_counts, strict=False):
        seen += counted
        if seen >= wanted:
            return bound
    return None


def summary(fold: PageMapFold, glyphs: Glyphs) -> Line:
    """Mean, percentiles and the shape of the histogram in one line; empty where no fault was answered."""
    answered = sum(fold.latency_counts)
    if not answered:
        return []
    line: Line = [(f"mean {microseconds(fold.fault_ms * 1e3 / answered)}", "plain")]
    for share, name in ((0.5, "p50"), (0.95, "p95"), (0.99, "p99")):
        bound = quantile_bound(fold, share)
        line += [(f"  {name}", "muted"), (_within(bound, fold), "plain" if _is_quick(bound) else "warning")]
    first, last = _span(fold.latency_counts)
    shape = bars([math.log1p(max(one, 0)) for one in fold.latency_counts[first:last]], 1, glyphs)[0]
    return [*line, ("  ", "plain"), (shape, "faulted")]


def histogram(fold: PageMapFold, width: int, glyphs: Glyphs) -> list[Line]:
    """One bar a span of time, from the shortest that has any fault to the longest."""
    first, last = _span(fold.latency_counts)
    most = max(fold.latency_counts, default=0)
    room = max(width - _BOUND_WIDTH - _COUNT_WIDTH - 1, 4)
    lines: list[Line] = []
    for index in range(first, last):
        counted = fold.latency_counts[index]
        bound = fold.latency_bounds_us[index] if index < len(fold.latency_bounds_us) else None
        length = max(round(counted / most * room), 1) if counted else 0
        within = left(_within(bound, fold).strip(), _BOUND_WIDTH)
        line: Line = [(within, "muted"), (right(count(counted), _COUNT_WIDTH), "plain"), (" ", "plain")]
        lines.append([*line, (glyphs.full * length, "faulted" if _is_quick(bound) else "broken")])
    return lines


def microseconds(duration: float) -> str:
    """A duration given in microseconds: `4 us`, `512 us`, `1.0 ms`."""
    return f"{duration:.0f} us" if duration < 999.5 else milliseconds(duration / 1e3)


def _is_quick(bound: int | None) -> bool:
    return bound is not None and bound <= SLOW_US


def _within(bound: int | None, fold: PageMapFold) -> str:
    if bound is None:
        return f" >{microseconds(fold.latency_bounds_us[-1])}" if fold.latency_bounds_us else ""
    return f" <{microseconds(bound)}"


def _span(counts: Sequence[int]) -> tuple[int, int]:
    """From which span to which one there are faults."""
    found = [index for index, counted in enumerate(counts) if counted]
    return (found[0], found[-1] + 1) if found else (0, 0)
