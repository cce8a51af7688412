"""A fan-out in words: how far it is, how long its forks took, what took that, and what limited it. Pure."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from forktui.model.bursts import MAKING, REST, WAIT, Burst
from forktui.text.quantities import count, milliseconds, names, plural, rate
from forktui.view.glyphs import Glyphs
from forktui.view.styled_lines import Ink, Line, Piece, joined, line_width
from supervisor.models import FanOutFailure

BUSY_PERCENT: Final = 90.0
"""From which on the host's processors are what limits a fan-out."""
FULL_SHARE: Final = 0.8
"""Of those that may be made at once: as many under way on the average are as many as there may be."""
STEP_INKS: Final[dict[str, Ink]] = {
    WAIT: "guide",
    "prepare": "muted",
    "spawn": "standby",
    "load": "around",
    "prefetch": "prefetched",
    "resume": "running",
    REST: "muted",
    MAKING: "waiting",
}
"""Another step is drawn as a spawn."""
_ORDER: Final = {name: place for place, name in enumerate(STEP_INKS)}


def heading(burst: Burst, now: datetime | None, glyphs: Glyphs) -> Line:
    """What it is of, how many forks are made of how many, what failed, and how it goes or went."""
    operation, told = burst.told.operation, burst.told
    line: Line = [("fan-out of ", "muted"), (operation.name, "strong"), ("  ", "plain")]
    if burst.running:
        line.append((f"{glyphs.working} ", "waiting"))
    line.append((f"{count(operation.done)} of {plural(operation.total or 0, 'fork')}", "strong"))
    if told.failed:
        line.append((f"  {count(told.failed)} failed", "broken"))
    line.append((f"  {milliseconds(burst.elapsed(now))}", "plain"))
    return [*line, ("  ", "plain"), *_outcome(burst)]


def progress_bar(burst: Burst, width: int, glyphs: Glyphs) -> Line:
    """What of it is made, has failed, is being made, and is left."""
    total = max(burst.told.operation.total or 0, 1)
    parts: list[tuple[int, str, Ink]] = [
        (burst.told.operation.done, glyphs.full, "running"),
        (burst.told.failed, glyphs.mixed, "broken"),
        (len(burst.making), glyphs.steps["spawn"], "waiting"),
    ]
    line: Line = []
    drawn = before = 0
    for amount, symbol, ink in parts:
        before = min(before + amount, total)
        length = min(round(before / total * width), width) - drawn
        # What there is any of shows.
        length = max(length, 1) if amount and drawn < width else length
        line.append((symbol * length, ink))
        drawn += length
    return [*line, (glyphs.absent * (width - drawn), "guide")]


def figures(burst: Burst, now: datetime | None) -> list[Line]:
    """Percentiles of how long a fork took, the slowest, and how many came a second, the most telling first."""
    median, most = burst.percentile(0.5), burst.percentile(0.95)
    if median is None or most is None:
        return [[("no fork is made yet" if burst.running else "no fork was made", "muted")]]
    parts: list[Line] = [_named("p50", milliseconds(median)), _named("p95", milliseconds(most))]
    ready, last = burst.ready_percentile(0.5), burst.ready_percentile(0.95)
    if ready is not None and last is not None:
        parts += [_named("ready p50", milliseconds(ready)), _named("p95", milliseconds(last))]
    slowest = burst.members.get(burst.slowest or "")
    if slowest is not None:
        parts.append([("slowest ", "muted"), (f"{slowest.name} {milliseconds(burst.durations[-1])}", "warning")])
    seconds = burst.elapsed(now) / 1e3
    if seconds:
        parts.append([(rate(burst.told.operation.done / seconds), "plain"), (" a second", "muted")])
    return parts


def limits(burst: Burst, now: datetime | None) -> list[Line]:
    """What most likely limited it, and then what else bounds it; nothing before a fork is made."""
    if not burst.durations:
        return []
    spent = max(sum(burst.spent.values()), 1e-3)
    step, took = max(burst.spent.items(), key=lambda item: item[1], default=("", 0.0))
    at_once = spent / max(burst.elapsed(now), 1.0)
    most, many = burst.told.concurrency, (burst.told.operation.total or 0) > burst.told.concurrency
    if burst.cpu_percent >= BUSY_PERCENT:
        by = f"the host's processors, {burst.cpu_percent:.0f}% used"
    elif many and at_once >= FULL_SHARE * most:
        by = f"{most} at once, which were under way all the time"
    else:
        by = _by_step(step)
    rest = [f"{step} took {took / spent:.0%} of the forks' time", f"{at_once:.1f} of {most} at once"]
    if 0 < burst.cpu_percent < BUSY_PERCENT:
        rest.append(f"processors {burst.cpu_percent:.0f}% used")
    if burst.told.limiting is not None and burst.told.fits is not None:
        rest.append(f"room for {count(burst.told.fits)} ({burst.told.limiting.replace('_', ' ')})")
    bounds: list[Line] = [[(one, "muted")] for one in rest]
    return [[("limited by ", "muted"), (by, "warning")], *bounds]


def in_a_row(parts: Sequence[Line], width: int, glyphs: Glyphs) -> Line:
    """As many of the parts beside one another as there is room for; the first in any case."""
    kept = list(parts)
    while len(kept) > 1 and line_width(joined(kept, _separator(glyphs))) > width:
        kept.pop()
    return joined(kept, _separator(glyphs))


def legend(burst: Burst, width: int, glyphs: Glyphs) -> list[Line]:
    """What the bars are drawn with, and how long each step took on the average, in rows of whole entries."""
    made = max(len(burst.durations), 1)
    rows: list[Line] = []
    for name in _in_order(burst.spent):
        entry = _step(name, burst.spent[name] / made, glyphs)
        if rows and line_width(rows[-1]) + 2 + line_width(entry) <= width:
            rows[-1] = joined([rows[-1], entry], ("  ", "plain"))
        else:
            rows.append(entry)
    return rows


def legend_row(burst: Burst, width: int, glyphs: Glyphs) -> Line:
    """The same in one row, without the steps that took least where there is no room for them."""
    made, spent = max(len(burst.durations), 1), _in_order(burst.spent)
    while True:
        row = joined([_step(name, burst.spent[name] / made, glyphs) for name in spent], ("  ", "plain"))
        if len(spent) <= 1 or line_width(row) <= width:
            return row
        spent.remove(min(spent, key=burst.spent.__getitem__))


def failures(burst: Burst) -> list[Line]:
    """Why forks failed: each cause once, with the forks that it had."""
    causes: dict[str, list[FanOutFailure]] = {}
    for one in burst.told.failures:
        causes.setdefault(one.error.message.removeprefix(f"{one.name}: "), []).append(one)
    lines: list[Line] = [
        [(names([one.name for one in failed], shown=3), "strong"), (f": {cause}", "broken")]
        for cause, failed in causes.items()
    ]
    more = burst.told.failed - len(burst.told.failures)
    return [*lines, [(f"and {plural(more, 'fork')} more failed", "broken")]] if more > 0 else lines


def in_a_line(burst: Burst, now: datetime | None, glyphs: Glyphs) -> Line:
    """A fan-out in a list: when, of what, how many, how long."""
    begun = f"{burst.begun.astimezone():%H:%M:%S}  " if burst.begun is not None else ""
    return [(begun, "muted"), *heading(burst, now, glyphs)]


def _outcome(burst: Burst) -> Line:
    operation = burst.told.operation
    if burst.running:
        ending = "being cancelled" if operation.cancelled else f"{burst.told.concurrency} at once"
        return [(f"{ending}, asked by {operation.asked_by}", "muted")]
    if operation.outcome == "done":
        return [(f"done, asked by {operation.asked_by}", "running")]
    why = f": {operation.cancelled}" if operation.cancelled else ""
    return [(f"{operation.outcome}{why}", "warning")]


def _by_step(step: str) -> str:
    return {
        WAIT: "the source, at which forks wait for their turn",
        "prepare": "the page server, which was started",
        "prefetch": "the pages that are prefetched",
        REST: "the disk, or the supervisor: records are written",
    }.get(step, f"{step}, which the VMM takes")


def _in_order(steps: Iterable[str]) -> list[str]:
    """Steps as they follow one another, those that are not known in the middle."""
    return sorted(steps, key=lambda name: (_ORDER.get(name, len(_ORDER) / 2), name))


def _step(name: str, took: float, glyphs: Glyphs) -> Line:
    symbol = glyphs.steps.get(name, glyphs.full)
    return [(symbol * 2, STEP_INKS.get(name, "standby")), (f" {name} ", "muted"), (milliseconds(took), "plain")]


def _named(name: str, value: str) -> Line:
    return [(f"{name} ", "muted"), (value, "plain")]


def _separator(glyphs: Glyphs) -> Piece:
    return f" {glyphs.dot} ", "guide"
