"""Rows of figures of a long run, and which of them grew from its first third to its last. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from statistics import median, quantiles
from typing import Final

Row = Mapping[str, float]

MEMORY: Final = frozenset(
    {"RSS MiB", "private MiB", "page server's private MiB", "console holder's private MiB", "data MiB"}
)
MEMORY_GROWTH: Final = 1.2
"""How many times its first third's median a figure in MiB may be in the last third."""
MEMORY_MARGIN: Final = 4.0
"""MiB that it may be more at all events: a heap has no size to the page."""
LOGS: Final = frozenset({"log KiB", "page server's log KiB"})
"""Told and not judged: they have a line for what happened."""
JUDGED_FROM: Final = 15
"""Rows: five to a third. What is found in fewer is chance."""
WIDTH: Final = 6
"""Of a figure, where the longest word of its column's name is not longer."""


def heading(columns: Iterable[str]) -> list[str]:
    """Return the lines that name the columns, each word below the one before."""
    words = {column: column.split() for column in columns}
    height = max(map(len, words.values()))
    padded = {column: [""] * (height - len(some)) + some for column, some in words.items()}
    return [
        "  ".join(f"{some[number]:>{_width(column)}}" for column, some in padded.items()) for number in range(height)
    ]


def line(row: Row) -> str:
    """Return one row's figures as a line of the table."""
    return "  ".join(f"{_figure(value):>{_width(column)}}" for column, value in row.items())


def grown(rows: Sequence[Row], columns: Sequence[str]) -> list[str]:
    """Return the columns that grew: nearly all of its figures at the end are above nearly all at the beginning.

    Memory may grow by MEMORY_GROWTH and MEMORY_MARGIN.
    """
    first, last = _thirds(rows)
    if len(rows) < JUDGED_FROM:
        return []
    return [column for column in columns if _grew(column, _of(first, column), _of(last, column))]


def comparison(rows: Sequence[Row], columns: Sequence[str]) -> Iterator[str]:
    """Yield a line for each column: its median in the first and in the last third, their ratio, and whether it grew."""
    first, last = _thirds(rows)
    bad = grown(rows, columns)
    yield f"{'':26} {'first':>8} {'last':>8} {'ratio':>8}"
    for column in columns:
        before, after = median(_of(first, column)), median(_of(last, column))
        ratio = f"{after / before:.2f}" if before else "-"
        verdict = "  GREW" if column in bad else ""
        yield f"{column:26} {_figure(before):>8} {_figure(after):>8} {ratio:>8}{verdict}"


def _grew(column: str, before: Sequence[float], after: Sequence[float]) -> bool:
    if column in LOGS:
        return False
    if column in MEMORY:
        return median(after) > median(before) * MEMORY_GROWTH + MEMORY_MARGIN
    return quantiles(after, n=10, method="inclusive")[0] > quantiles(before, n=10, method="inclusive")[-1]


def _thirds(rows: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    third = max(1, len(rows) // 3)
    return rows[:third], rows[-third:]


def _of(rows: Sequence[Row], column: str) -> list[float]:
    return [row[column] for row in rows]


def _width(column: str) -> int:
    return max(WIDTH, *map(len, column.split()))


def _figure(value: float) -> str:
    return f"{value:.0f}" if value == int(value) else f"{value:.1f}"
