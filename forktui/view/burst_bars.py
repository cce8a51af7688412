"""A fan-out as a waterfall: a bar a fork, of its steps one after the other. Pure."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rich.cells import cell_len

from forktui.model.bursts import Burst, Member
from forktui.text.quantities import milliseconds
from forktui.view.bursts import STEP_INKS
from forktui.view.glyphs import Glyphs
from forktui.view.styled_lines import Ink, Line, left, merged, right

MOST_NAME: Final = 24
SHORT_SHARE: Final = 8
"""Where a fan-out takes so many times as long as its longest fork each bar begins at the left: else it was a dot."""
_BEGIN_WIDTH: Final = 9
_DURATION_WIDTH: Final = 10
_LEAST_BAR: Final = 8


@dataclass(frozen=True)
class Axis:
    """What a cell of the bars stands for: milliseconds from the fan-out's beginning, or from each fork's own."""

    milliseconds: float
    own: bool


def axis(burst: Burst, now: datetime | None) -> Axis:
    """The span that shows the steps of a fork, and where it began if that can be."""
    moment = now or burst.begun
    going = [burst.members[one].milliseconds(moment) for one in burst.making] if moment is not None else []
    longest = max([*burst.durations[-1:], *going], default=0.0)
    whole = burst.elapsed(now)
    own = longest * SHORT_SHARE < whole
    return Axis(max(longest if own else whole, 1.0), own)


def bar_lines(burst: Burst, members: Sequence[Member], now: datetime | None, width: int, glyphs: Glyphs) -> list[Line]:
    """A line a fork: its name, when it began, its steps as a bar, and how long it took, or takes."""
    name_width = min(max((cell_len(one.name) for one in members), default=0), MOST_NAME, max(width // 4, 8))
    span, wide = axis(burst, now), width >= name_width + _BEGIN_WIDTH + _DURATION_WIDTH + _LEAST_BAR + 12
    room = max(width - name_width - 2 - _DURATION_WIDTH - (_BEGIN_WIDTH if wide else 0), _LEAST_BAR)
    lines: list[Line] = []
    for one in members:
        name: Line = [
            (left(one.name, name_width, glyphs.ellipsis), "broken" if one.failed else "plain"),
            (" ", "plain"),
        ]
        began = (one.begun - burst.begun).total_seconds() * 1e3 if burst.begun is not None else 0.0
        if wide:
            name.append((right(f"+{milliseconds(max(began, 0.0))}", _BEGIN_WIDTH - 1), "muted"))
            name.append((" ", "plain"))
        bar = _bar(one, 0.0 if span.own else began, now, span, room, glyphs)
        lines.append([*name, *bar, *_end(burst, one, now, glyphs)])
    return lines


def shown(burst: Burst, rows: int) -> list[Member]:
    """The forks of most interest: the last that have begun while it goes on, and the slowest ones after that."""
    if burst.running:
        return [burst.members[one] for one in burst.order[-rows:]] if rows > 0 else []
    took = {one: burst.members[one] for one in burst.order}
    slowest = heapq.nlargest(
        rows, burst.order, key=lambda one: took[one].milliseconds(took[one].ended or took[one].begun)
    )
    return sorted((took[one] for one in slowest), key=lambda one: one.begun)


def _bar(member: Member, begin: float, now: datetime | None, span: Axis, room: int, glyphs: Glyphs) -> Line:
    """The steps of a fork in `room` cells; one that took any time at all has a cell."""
    cells = [" "] * room
    inks: list[Ink] = ["plain"] * room
    moment = member.ended or now or member.begun
    at = begin
    for step in member.steps(moment):
        first, at = round(at / span.milliseconds * room), at + step.milliseconds
        last = round(at / span.milliseconds * room)
        for cell in range(max(first, 0), min(last, room)):
            cells[cell] = glyphs.steps.get(step.name, glyphs.full)
            inks[cell] = STEP_INKS.get(step.name, "standby")
    if not any(cell != " " for cell in cells):
        place = min(max(round(begin / span.milliseconds * room), 0), room - 1)
        cells[place], inks[place] = glyphs.full, "standby" if member.ended else "waiting"
    return merged((cell, ink) for cell, ink in zip(cells, inks, strict=True))


def _end(burst: Burst, member: Member, now: datetime | None, glyphs: Glyphs) -> Line:
    """How long it took, or takes by now."""
    took = milliseconds(member.milliseconds(member.ended or now or member.begun))
    ink: Ink = "warning" if member.id == burst.slowest else "plain"
    if member.failed:
        took, ink = "failed", "broken"
    elif member.ended is None:
        took, ink = f"{glyphs.working} {took}", "waiting"
    return [(right(took, _DURATION_WIDTH, glyphs.ellipsis), ink)]
