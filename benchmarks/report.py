"""Results as a table for people and as JSON for programs. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from benchmarks.measurement import Bar, Result, Spread


def as_text(result: Result) -> str:
    """Return a result as a titled table with its bars below."""
    if result.skipped is not None:
        return f"{result.name}\n  skipped: {result.skipped}"
    columns = list(dict.fromkeys(column for row in result.rows for column in row.values))
    rows = [[row.name, *(_spread(row.values.get(column)) for column in columns)] for row in result.rows]
    lines = [f"{result.name}: {result.title}", *_aligned([["", *columns], *rows])]
    if result.bars:
        lines += ["", *_aligned([_bar(bar) for bar in result.bars])]
    return "\n".join(lines)


def as_json(machine: Mapping[str, Any], rounds: int, results: Sequence[Result]) -> dict[str, Any]:
    """Return a whole run, ready for json.dumps."""
    return {
        "machine": dict(machine),
        "rounds": rounds,
        "benchmarks": [
            asdict(result) | {"bars": [asdict(bar) | {"verdict": bar.verdict} for bar in result.bars]}
            for result in results
        ],
    }


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows as lines: the first column to the left, the others to the right."""
    first, *others = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for name, *cells in table:
        padded = [cell.rjust(width) for cell, width in zip(cells, others, strict=True)]
        lines.append("  ".join(["", name.ljust(first), *padded]).rstrip())
    return lines


def _bar(bar: Bar) -> list[str]:
    verdict = "" if bar.limit is None else f"{bar.bound} {bar.limit:g}: {bar.verdict}"
    return [bar.name, _spread(bar.value), verdict]


def _spread(spread: Spread | None) -> str:
    if spread is None:
        return "-"
    if spread.p10 == spread.p90:
        return _number(spread.median)
    return f"{_number(spread.median)} ({_number(spread.p10)}..{_number(spread.p90)})"


def _number(value: float) -> str:
    """Return whole numbers as such, and three significant digits of others."""
    if value.is_integer() or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
