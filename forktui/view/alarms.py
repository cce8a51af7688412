"""Alarms in words: on a row, in the strip above the tree, and in full. Pure."""

import textwrap
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final

from forktui.model.alarms import Alarm, Alarms
from forktui.model.conditions import Kind
from forktui.model.world import World
from forktui.text.quantities import count
from forktui.view.glyphs import Glyphs
from forktui.view.rows import text_of, wrapped
from forktui.view.styled_lines import Ink, Line, Piece, clipped, line_width
from supervisor.models import Instance

BADGES: Final[Mapping[Kind, str]] = {
    Kind.CORRUPT: "CORRUPT",
    Kind.ASIDE: "ASIDE",
    Kind.LAYER: "LAYER",
    Kind.PAGES: "NO PAGES",
    Kind.STUCK: "STUCK",
    Kind.PAGER: "NO PAGER",
    Kind.DIED: "DIED",
    Kind.ERROR: "ERROR",
    Kind.MEMORY: "MEMORY",
    Kind.DISK: "DISK",
    Kind.REFUSED: "REFUSED",
    Kind.TOLD: "ALARM",
}
BADGE_WIDTH: Final = max(map(len, BADGES.values())) + 2
"""Of a badge with the cell at each side of it."""
ROOM_FOR_WORDS: Final = 58
"""Cells of a strip that says what its key does."""
NAMED: Final = 3
"""How many of those that have one thing wrong are named."""
_ON_STATE: Final = frozenset({Kind.DIED})
"""What the state of a row shows by itself."""
_INDENT: Final = " " * (BADGE_WIDTH + 1)


def mark(world: World, instance: Instance) -> Piece | None:
    """The badge of the worst that there is about an instance, or of the page server that it waits for."""
    kinds = [kind for kind in world.alarms.marks.get(instance.id, ()) if kind not in _ON_STATE]
    holding = [kind for kind in kinds if world.alarms.holds(kind, instance.id)]
    if holding:
        return badge(holding[0], holds=True)
    if _waits_for_pager(world, instance):
        return badge(Kind.PAGER, holds=True)
    return badge(kinds[0], holds=False) if kinds else None


def badge(kind: Kind, *, holds: bool) -> Piece:
    """A kind as a badge, which stands out while its cause holds."""
    word = BADGES[kind]
    return (f" {word} ", "alarm") if holds else (f"({word})", "warning")


def strip(world: World, width: int, height: int, glyphs: Glyphs, key: str) -> list[Line]:
    """What is to be looked at in at most `height` lines, a kind each, the worst first; `key` lists all of it."""
    groups = world.alarms.groups(NAMED)
    lines = [_group(kind, number, some, world.heard_at) for kind, number, some in groups[:height]]
    more = len(groups) - len(lines)
    wide = width >= ROOM_FOR_WORDS
    told = [*([f"+{more} more," if wide else f"+{more}"] if more else []), f"{key} lists them" if wide else key]
    end: Line = [(f"  {' '.join(told)} ", "key")]
    room = width - line_width(end)
    return [
        [*_padded(clipped(line, room, glyphs.ellipsis), room), *end]
        if number == len(lines) - 1
        else clipped(line, width, glyphs.ellipsis)
        for number, line in enumerate(lines)
    ]


def heading(alarms: Alarms, *, stale: bool = False) -> Line:
    """What the list is of, and whether that may be old."""
    known = sum(map(len, alarms.known.values()))
    line: Line = [("Alarms", "strong"), (f"  {count(alarms.unacknowledged)} to look at", "plain")]
    line += [(f", {count(known)} acknowledged", "muted")] if known else []
    return [*line, ("  as it was known last: not connected", "warning")] if stale else line


def in_full(alarm: Alarm, width: int, now: datetime | None) -> list[Line]:
    """An alarm in lines of `width` cells, with nothing left out; `now` tells which day needs no date."""
    ink: Ink = "muted" if alarm.acknowledged else "plain"
    first: Line = [
        *_in_column(badge(alarm.kind, holds=alarm.holds)),
        (f"{alarm.name}", "muted" if alarm.acknowledged else "strong"),
        (f"  {when(alarm, now)}", "muted"),
    ]
    rows = textwrap.wrap(alarm.what, max(width - len(_INDENT), 10)) or [""]
    cut = [text_of(row) for one in rows for row in wrapped([(one, ink)], max(width - len(_INDENT), 1))]
    return [*wrapped(first, width), *([(_INDENT, "plain"), (row, ink)] for row in cut)]


def when(alarm: Alarm, now: datetime | None) -> str:
    """Since when it holds, or from when to when it did, how often, and whether it was acknowledged."""
    since = _time(alarm.since, now)
    if alarm.holds:
        told = f"since {'before ' if alarm.earlier else ''}{since}"
    elif alarm.until in (None, alarm.since):
        told = since
    else:
        told = f"{since} to {_time(alarm.until, now)}, over"
    if alarm.times > 1:
        told += f", {count(alarm.times)} times"
    return f"{told}, acknowledged" if alarm.acknowledged else told


def _waits_for_pager(world: World, instance: Instance) -> bool:
    source = instance.source_id
    if source is None or instance.vmm_pid is None or instance.memory_backend != "uffd":
        return False
    return Kind.PAGER in world.alarms.marks.get(source, ()) and world.alarms.holds(Kind.PAGER, source)


def _group(kind: Kind, number: int, some: Sequence[Alarm], now: datetime | None) -> Line:
    """Alarms of one kind, of which some are known, in one line."""
    first = some[0]
    called = list(dict.fromkeys(one.name for one in some))
    named = ", ".join(called) + (f", +{count(number - len(some))}" if number > len(some) else "")
    same = all(one.what == first.what for one in some)
    since = _time(first.since, now)
    words = f": {first.what}" if same else f": {first.what}, and others"
    line = _in_column(badge(kind, holds=any(one.holds for one in some)))
    return [*line, (f"{since} ", "muted"), (named, "strong"), (words, "plain")]


def _in_column(piece: Piece) -> Line:
    """A badge and what is left of its column, whose ink is not the badge's."""
    word, ink = piece
    return [(word, ink), (" " * (BADGE_WIDTH + 1 - len(word)), "plain")]


def _padded(line: Line, width: int) -> Line:
    return [*line, (" " * (width - line_width(line)), "plain")]


def _time(at: datetime | None, now: datetime | None) -> str:
    if at is None:
        return "this dashboard began"
    local = at.astimezone()
    same_day = now is None or now.astimezone().date() == local.date()
    return f"{local:%H:%M:%S}" if same_day else f"{local:%b %d %H:%M}"
