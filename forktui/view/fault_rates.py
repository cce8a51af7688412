"""Faults per second, of one instance or of all that is below a source without a VMM. Pure."""

from collections.abc import Iterable, Sequence
from typing import Final

from forktui.model.faults import FaultSample, rates_over_time
from forktui.text.quantities import plural, rate
from forktui.view.glyphs import Glyphs
from forktui.view.panels import Fact
from forktui.view.sparkline import bars
from forktui.view.styled_lines import Line, line_width, merged
from forktui.view.subject import Subject

SAMPLE_SECONDS: Final = 0.5
_IN_A_LINE: Final = 24
"""Spans in a line among other facts."""


def rates_of(subject: Subject, buckets: int) -> tuple[str, list[float]]:
    """Whose faults those are, and how many there were in each of the last spans."""
    history: Iterable[FaultSample] = subject.family.faults
    whose = f"faults/s of {plural(len(subject.family.below), 'fork')}"
    if subject.instance.vmm_pid is not None or not subject.family.below:
        history, whose = subject.world.fault_history(subject.instance.id), "faults/s"
    return whose, rates_over_time(history, subject.now, buckets, SAMPLE_SECONDS)


def rate_title(whose: str, rates: Sequence[float], width: int) -> Line:
    """Whose faults, how many at the moment and at most, and since when, as much of it as there is room for."""
    peak, last = _peak_and_last(rates)
    title: Line = [(whose, "title"), (f"  now {rate(last)}", "plain")]
    for more in ((f"  peak {rate(peak)}", "plain"), (f"  last {round(len(rates) * SAMPLE_SECONDS)} s", "muted")):
        if line_width([*title, more]) <= width:
            title.append(more)
    return title


def rate_facts(subject: Subject) -> list[Fact]:
    """The same in a line; nothing where nobody counts faults."""
    served = subject.instance.vmm_pid is not None and subject.instance.memory_backend == "uffd"
    if not served and not subject.family.below:
        return []
    whose, rates = rates_of(subject, _IN_A_LINE)
    peak, last = _peak_and_last(rates)
    line = floored(bars(rates, 1, subject.glyphs)[0], subject.glyphs)
    line.append((f"  now {rate(last)}  peak {rate(peak)}", "plain"))
    return [Fact("faults/s", [*line, (f"  {whose.removeprefix('faults/s').strip()}".rstrip(), "muted")])]


def floored(bar: str, glyphs: Glyphs) -> Line:
    """The lowest line of bars, with a floor where there is nothing."""
    return merged((symbol, "faulted") if symbol != " " else (glyphs.heights[0], "guide") for symbol in bar)


def _peak_and_last(rates: Sequence[float]) -> tuple[float, float]:
    return max(rates, default=0.0), max(rates[-2:], default=0.0)
