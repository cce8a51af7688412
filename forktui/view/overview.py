"""The host beside its tree: the hottest trees, who holds its memory, how it is, and what failed last. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from forktui.model.trees import Tree
from forktui.model.world import World
from forktui.text.quantities import count, rate, size
from forktui.view.glyphs import Glyphs
from forktui.view.panels import flowed
from forktui.view.styled_lines import Ink, Line, clipped, left, right
from supervisor.models import Activity, HostStatistics

FAULT_SECONDS: Final = 10.0
"""Over which the faults of a tree are counted: a tree that was hot for a moment stays long enough to be read."""
TREES: Final = 5
FAILURE_LINES: Final = 3
"""Of one failure; the events have it whole."""
_BLANK: Final = (" ", "plain")
"""Between two rows that become one."""
_LABEL: Final = 8
_NUMBER: Final = 10
_INKS: Final[dict[str, Ink]] = {"warning": "warning", "alarm": "broken"}


def overview(world: World, trees: Sequence[Tree], width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """As many of the sections as `height` has room for, the failures with all that is left."""
    names = {tree.root: world.instances[tree.root].name for tree in trees}
    hot = [_Rank(names[tree.root], tree.faults_per_second, rate(tree.faults_per_second)) for tree in trees]
    large = [_Rank(names[tree.root], tree.resident_bytes, size(tree.resident_bytes)) for tree in trees]
    sections: list[list[Line]] = [
        [[("host", "title")], *_host(world.host, width, glyphs)],
        [
            [("hottest trees", "title"), (f"  faults/s, last {FAULT_SECONDS:.0f} s", "muted")],
            *_ranked(hot, "faulted", width, glyphs),
        ],
        [
            [("memory by tree", "title"), ("  private and shared", "muted")],
            *_ranked(large, "standby", width, glyphs),
        ],
    ]
    lines: list[Line] = []
    for section in sections:
        if len(lines) + len(section) + 1 <= height:
            lines += [*section, []]
    if len(lines) + 1 < height:
        lines += [
            [("failures and warnings", "title")],
            *_failures(world.activities, width, height - len(lines) - 1, glyphs),
        ]
    return lines


@dataclass(frozen=True)
class _Rank:
    name: str
    value: float
    written: str


def _ranked(all_ranks: Sequence[_Rank], ink: Ink, width: int, glyphs: Glyphs) -> list[Line]:
    """The first ones, each with a bar in proportion to the very first one's; those with nothing are not counted."""
    ranks = sorted((rank for rank in all_ranks if rank.value), key=lambda rank: -rank.value)
    if not ranks:
        return [[("none", "muted")]]
    name_width = max(width // 2 - 4, 8)
    room = max(width - name_width - _NUMBER - 2, 1)
    lines: list[Line] = []
    for rank in ranks[:TREES]:
        name = left(rank.name, name_width, glyphs.ellipsis)
        bar = glyphs.full * max(round(rank.value / ranks[0].value * room), 1)
        lines.append(
            [(name, "plain"), (right(rank.written, _NUMBER, glyphs.ellipsis), ink), ("  ", "plain"), (bar, ink)]
        )
    return [*lines, [(f"and {count(len(ranks) - TREES)} more", "muted")]] if len(ranks) > TREES else lines


def _host(host: HostStatistics, width: int, glyphs: Glyphs) -> list[Line]:
    total, free = host.memory_total_bytes, host.memory_available_bytes
    if not total:
        return [[("not told yet", "muted")]]
    servers = f"page servers {size(host.page_server_rss_bytes)}, {host.page_server_cpu_seconds:.1f} s of cpu"
    return [
        _gauge("cpu", host.cpu_percent / 100, width, glyphs),
        _gauge("memory", (total - free) / total, width, glyphs),
        [(f"{size(free)} of {size(total)} free", "muted")],
        [(servers, "muted")],
        [(f"supervisor {size(host.supervisor_rss_bytes)}", "muted")],
    ]


def _gauge(label: str, share: float, width: int, glyphs: Glyphs) -> Line:
    room = max(width - _LABEL - _NUMBER, 4)
    length = max(min(round(share * room), room), 0)
    bar: Line = [(glyphs.full * length, "standby"), (glyphs.full * (room - length), "guide")]
    return [(left(label, _LABEL), "muted"), (right(f"{share:.0%}", _NUMBER - 2), "plain"), ("  ", "plain"), *bar]


def _failures(activities: Sequence[Activity], width: int, height: int, glyphs: Glyphs) -> list[Line]:
    """The last warnings and alarms, the newest first."""
    lines: list[Line] = []
    for activity in reversed(activities):
        if activity.level == "info":
            continue
        ink = _INKS[activity.level]
        begin = f"{activity.at.astimezone():%H:%M:%S} {glyphs.levels[activity.level]} "
        whole = flowed([(begin, ink), (activity.message, "plain")], width)
        told = whole[: FAILURE_LINES - 1]
        rest = [piece for row in whole[FAILURE_LINES - 1 :] for piece in (*row, _BLANK)]
        told += [clipped(rest, width, glyphs.ellipsis)] if rest else []
        if len(lines) + len(told) > height:
            break
        lines += told
    return lines or [[("none told", "muted")]]
