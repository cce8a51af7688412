"""Lines as the pure rooms write them: pieces of text, each with the name of its ink; a theme knows its colours."""

from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Literal

from rich.cells import cell_len, set_cell_size

Ink = Literal[
    "plain",
    "muted",
    "strong",
    "guide",
    "title",
    "running",
    "waiting",
    "standby",
    "stopped",
    "broken",
    "locked",
    "recording",
    "alarm",
    "warning",
    "mark",
    "absent",
    "faulted",
    "around",
    "prefetched",
    "zero",
    "key",
    "notice",
    "found",
    "found here",
]
Piece = tuple[str, Ink]
Line = list[Piece]


def fit(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` cut to `width` cells, with an ellipsis where something was cut; never padded."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, max(width - 1, 0)) + ellipsis if width > 0 else ""


def left(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` in exactly `width` cells, at their left."""
    return set_cell_size(fit(text, width, ellipsis), width)


def right(text: str, width: int, ellipsis: str = "…") -> str:
    """`text` in exactly `width` cells, at their right."""
    fitted = fit(text, width, ellipsis)
    return " " * (width - cell_len(fitted)) + fitted


def line_width(line: Iterable[Piece]) -> int:
    """The cells that a line takes."""
    return sum(cell_len(text) for text, _ in line)


def clipped(line: Line, width: int, ellipsis: str = "…") -> Line:
    """The line cut to `width` cells, with an ellipsis where something was cut."""
    kept: Line = []
    room = width
    for text, ink in filter(lambda piece: piece[0], line):
        if cell_len(text) > room:
            return [*kept, (fit(text, room, ellipsis), ink)] if room else _ended(kept, ellipsis)
        kept.append((text, ink))
        room -= cell_len(text)
    return kept


def _ended(line: Line, ellipsis: str) -> Line:
    """A full line of which something is missing."""
    *before, (text, ink) = line or [("", "plain")]
    return [*before, (fit(text + " ", cell_len(text), ellipsis), ink)]


def joined(parts: Iterable[Line], separator: Piece) -> Line:
    """The parts that are not empty, one after the other."""
    line: Line = []
    for part in parts:
        if part:
            line += [separator, *part] if line else part
    return line


def merged(pieces: Iterable[Piece]) -> Line:
    """The pieces as a line in which neighbours of one ink are one piece: each costs a terminal its own sequence."""
    return [("".join(text for text, _ in run), ink) for ink, run in groupby(pieces, key=lambda piece: piece[1])]


def differences(before: Line, after: Line) -> list[tuple[int, int]]:
    """From which cell to which one line is another, piece by piece; what the longer of them has more is different."""
    known, width = set(_placed(before)), line_width(after)
    spans: list[tuple[int, int]] = []
    for piece in _placed(after):
        if piece not in known:
            begin, end = piece[0], piece[0] + cell_len(piece[1])
            if spans and spans[-1][1] == begin:
                begin, _ = spans.pop()
            spans.append((begin, end))
    rest = line_width(before)
    return [*spans, (width, rest)] if rest > width else spans


def _placed(line: Line) -> Iterator[tuple[int, str, Ink]]:
    """The pieces of a line that are not empty, each with the cell in which it begins."""
    begin = 0
    for text, ink in line:
        if text:
            yield begin, text, ink
            begin += cell_len(text)
