"""Facts laid out: each behind its label, wrapped between its words, in as many columns as there is room for. Pure."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Final

from forktui.text.quantities import plural
from forktui.view.glyphs import Glyphs
from forktui.view.rows import wrapped
from forktui.view.styled_lines import Ink, Line, Piece, clipped, left, line_width

LABEL_WIDTH: Final = 10
COLUMN_WIDTH: Final = 50
"""The cells that a column of facts has at least."""
MOST_COLUMNS: Final = 3
_GAP: Final = 2
_WORD: Final = re.compile(r" *[^ ]+| +")
_BADGES: Final[frozenset[Ink]] = frozenset({"locked", "recording", "alarm"})
_LEAST_ROOM: Final = 16
"""Cells for what is said, where the label would leave less."""


@dataclass(frozen=True)
class Fact:
    """One thing to say, which wraps; `block` has lines below it that do not."""

    label: str
    value: Line
    block: tuple[Line, ...] = ()


@dataclass(frozen=True)
class Section:
    """Facts under a title."""

    title: str
    facts: tuple[Fact, ...]


def fact_lines(fact: Fact, width: int) -> list[Line]:
    """A fact in lines of at most `width` cells: its label, and what is said beside it, or below in a narrow place."""
    block = [clipped(line, width) for line in fact.block]
    if not fact.label:
        return [*(flowed(fact.value, width) if fact.value else ()), *block]
    room = width - LABEL_WIDTH
    if room < _LEAST_ROOM:
        return [[(fact.label, "muted")], *flowed(fact.value, width), *block]
    label: Line = [(left(fact.label, LABEL_WIDTH), "muted")]
    indent: Line = [(" " * LABEL_WIDTH, "plain")]
    rows = flowed(fact.value, room)
    return [[*(label if not number else indent), *row] for number, row in enumerate(rows)] + block


def flowed(line: Line, width: int) -> list[Line]:
    """The line in rows of at most `width` cells, one at least, broken between words where that can be."""
    rows: list[Line] = [[]]
    room = width
    for word in _words(line):
        cells = line_width(word)
        if cells > room and rows[-1]:
            rows.append([])
            room = width
        if not rows[-1]:
            word = _unled(word)
            cells = line_width(word)
        if cells <= width:
            rows[-1] += word
            room -= cells
        else:
            first, *rest = wrapped(word, width)
            rows[-1] += first
            rows += rest
            room = width - line_width(rows[-1])
    return rows


def in_columns(facts: Sequence[Fact], width: int, height: int, glyphs: Glyphs, more: str) -> list[Line]:
    """The facts in at most `height` lines, in columns of about the same length, the first filled first.

    Where there are more facts than that, the last line says how many lines are not there, and `more`: what shows them.
    """
    count = max(min(width // COLUMN_WIDTH, MOST_COLUMNS), 1)
    each = (width - _GAP * (count - 1)) // count
    blocks = [fact_lines(fact, each) for fact in facts]
    lengths = (length for length in range(1, height + 1) if len(_filled(blocks, length)) <= count)
    columns = _filled(blocks, next(lengths, height))
    if len(columns) > count:
        over = sum(map(len, columns[count:]))
        columns = columns[:count]
        last = columns[-1]
        over += max(len(last) + 1 - height, 0)
        del last[max(height - 1, 0) :]
        told: Line = [(f"{glyphs.ellipsis} {plural(over, 'more line')}: {more}", "waiting")]
        last.append(clipped(told, each, glyphs.ellipsis))
    return [_beside(row, each) for row in zip_longest(*columns, fillvalue=())][:height]


def _filled(blocks: Iterable[list[Line]], length: int) -> list[list[Line]]:
    """The blocks in columns of this length; one that is longer than that goes on in the next."""
    columns: list[list[Line]] = [[]]
    for block in blocks:
        rest = block
        if columns[-1] and len(columns[-1]) + len(rest) > length:
            columns.append([])
        while len(rest) > length:
            columns[-1] += rest[:length]
            rest = rest[length:]
            columns.append([])
        columns[-1] = columns[-1] + rest
    return columns


def in_sections(sections: Iterable[Section], width: int) -> list[Line]:
    """The sections below one another, a blank line between any two."""
    lines: list[Line] = []
    for section in sections:
        if not section.facts:
            continue
        lines += [[]] if lines else []
        lines += [[(section.title, "title")]] if section.title else []
        for fact in section.facts:
            lines += fact_lines(fact, width)
    return lines


def _beside(row: Sequence[Sequence[Piece]], width: int) -> Line:
    """Lines beside one another, each but the last in its whole width."""
    line: Line = []
    for number, part in enumerate(row):
        line += part
        if number < len(row) - 1:
            line.append((" " * (width - line_width(part) + _GAP), "plain"))
    return line


def _words(line: Line) -> Iterator[Line]:
    """The line in words, each with the blanks before it; one may be of several pieces, and a badge is one word."""
    word: Line = []
    for text, ink in line:
        for part in [text] if ink in _BADGES else _WORD.findall(text):
            if part.startswith(" ") and word:
                yield word
                word = []
            word.append((part, ink))
    if word:
        yield word


def _unled(word: Line) -> Line:
    """A word without the blanks before it, but for those that are part of a badge."""
    kept: Line = []
    for text, ink in word:
        rest = text if kept or ink in _BADGES else text.lstrip(" ")
        if rest:
            kept.append((rest, ink))
    return kept
