"""How long each step of a start took, as bars that follow one another. Pure."""

from collections.abc import Sequence
from typing import Final

from forktui.text.quantities import milliseconds
from forktui.view.glyphs import Glyphs
from forktui.view.panels import LABEL_WIDTH
from forktui.view.styled_lines import Ink, Line, left, right
from supervisor.models import Phase

_DURATION_WIDTH: Final = 9


def waterfall(phases: Sequence[Phase], width: int, glyphs: Glyphs) -> list[Line]:
    """The phases as bars, each beginning where the one before it ended."""
    whole = sum(phase.milliseconds for phase in phases)
    if not whole:
        return []
    room = max(width - LABEL_WIDTH - _DURATION_WIDTH, 4)
    lines: list[Line] = []
    before = 0.0
    for phase in phases:
        begin = min(round(before / whole * room), room - 1)
        before += phase.milliseconds
        length = max(round(before / whole * room) - begin, 1)
        ink: Ink = "prefetched" if phase.name == "prefetch" else "standby"
        bar: Line = [(" " * begin, "plain"), (glyphs.full * length, ink), (" " * (room - begin - length), "plain")]
        duration = right(milliseconds(phase.milliseconds), _DURATION_WIDTH, glyphs.ellipsis)
        lines.append([(left(phase.name, LABEL_WIDTH, glyphs.ellipsis), "muted"), *bar, (duration, "plain")])
    return lines
