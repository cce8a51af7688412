"""A fan-out as it is shown beside the tree, and the last ones on a screen of their own. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from forktui.model.bursts import Burst
from forktui.text.quantities import milliseconds, plural
from forktui.view.burst_bars import axis, bar_lines, shown
from forktui.view.bursts import (
    failures,
    figures,
    heading,
    in_a_line,
    in_a_row,
    legend,
    legend_row,
    limits,
    progress_bar,
)
from forktui.view.glyphs import Glyphs
from forktui.view.panels import flowed
from forktui.view.styled_lines import Line, clipped

LISTED: Final = 1000
"""Forks of a fan-out that are listed in full."""
MOST_CELLS: Final = 10_000
"""Of a line that wraps."""
_ROOMY: Final = 7
"""Lines from which on there is room for a legend and all figures beside the bars."""


@dataclass(frozen=True)
class Chosen:
    """Which fan-out of several is shown in full, and how."""

    bursts: Sequence[Burst]
    place: int
    slowest_first: bool = False

    @property
    def burst(self) -> Burst:
        """That one."""
        return self.bursts[self.place]


def in_short(burst: Burst, others: int, now: datetime | None, width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """A fan-out in a few lines: what it is and its figures, then as many of its forks as there is room for."""
    more = f"  and {plural(others, 'fan-out')} more" if others else ""
    title = clipped(heading(burst, now, glyphs), max(width - len(more), 1), glyphs.ellipsis)
    lines: list[Line] = [[*title, (more, "muted")]]
    if height > 2:
        lines.append(progress_bar(burst, width, glyphs))
    rows = (in_a_row(parts, width, glyphs) for parts in (figures(burst, now), limits(burst, now)))
    told = [*failures(burst)[:1], *rows]
    lines += [one for one in told if one][: 3 if height >= _ROOMY else 1]
    if height < _ROOMY:
        return [*lines, *bar_lines(burst, shown(burst, height - len(lines)), now, width, glyphs)][:height]
    drawn = shown(burst, height - len(lines) - 1)
    which = _which(burst, len(drawn))
    explained: Line = [*legend_row(burst, width - len(which), glyphs), (which, "muted")]
    return [*lines, *bar_lines(burst, drawn, now, width, glyphs), explained][:height]


def _which(burst: Burst, drawn: int) -> str:
    """Which of its forks are drawn; empty where all are."""
    if drawn >= len(burst.order):
        return ""
    return f"  last {drawn} shown" if burst.running else f"  slowest {drawn} shown"


def in_full(chosen: Chosen, now: datetime | None, width: int, glyphs: Glyphs) -> list[Line]:
    """The list of fan-outs, the newest first, and all of the one that is chosen."""
    lines: list[Line] = []
    for place, one in enumerate(chosen.bursts):
        sign = f"{glyphs.closed if place == chosen.place else ' '} "
        rows = flowed(in_a_line(one, now, glyphs), max(width - len(sign), 1))
        lines += [[(sign if not row else "  ", "mark"), *line] for row, line in enumerate(rows)]
    burst = chosen.burst
    lines += [[], progress_bar(burst, width, glyphs)]
    told_of = (in_a_row(parts, MOST_CELLS, glyphs) for parts in (figures(burst, now), limits(burst, now)))
    for told in (*told_of, *failures(burst)):
        lines += flowed(told, width) if told else []
    lines += legend(burst, width, glyphs)
    return [*lines, [], *_forks(chosen, now, width, glyphs)]


def _forks(chosen: Chosen, now: datetime | None, width: int, glyphs: Glyphs) -> list[Line]:
    burst = chosen.burst
    members = [burst.members[one] for one in burst.order]
    if chosen.slowest_first:
        members.sort(key=lambda one: -one.milliseconds(now or one.begun))
    span = axis(burst, now)
    order = "the slowest first" if chosen.slowest_first else "as they began"
    since = "each fork's own beginning" if span.own else "the fan-out's beginning"
    told = f"  {order}; bars are of {milliseconds(span.milliseconds)} from {since}"
    lines = flowed([("forks", "title"), (told, "muted")], width) if members else []
    lines += bar_lines(burst, members[:LISTED], now, width, glyphs)
    if len(members) > LISTED:
        lines.append([(f"and {len(members) - LISTED} more", "muted")])
    unseen = burst.told.operation.done - sum(not one.failed and one.ended is not None for one in members)
    if unseen > 0:
        lines += flowed([(f"{unseen} of its forks were made before this dashboard looked", "muted")], width)
    return lines
