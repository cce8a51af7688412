"""The last lines of something that has no end, each with its number, and on which rows of a pane they are. Pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple

from forktui.text.quantities import plural
from forktui.view.rows import height, pattern, text_of
from forktui.view.styled_lines import Line


class Place(NamedTuple):
    """A row of a line: it stays the same while lines come at the end and go at the beginning."""

    number: int
    row: int = 0


class KeptLines:
    """At most `limit` lines, numbered from 0 on; a line that says how many are no longer kept comes before them."""

    def __init__(self, limit: int) -> None:
        self.first = 0
        """The number of the oldest line that is kept."""
        self._limit = limit
        self._lines: list[Line] = []
        self._heights: list[int] = []
        self._ends: list[int] | None = None
        self._width: int | None = None
        self._query = ""
        self._found: list[int] = []

    @property
    def end(self) -> int:
        """The number of the next line."""
        return self.first + len(self._lines)

    @property
    def begin(self) -> int:
        """The number of the first line to show."""
        return self.first - 1 if self.first else 0

    @property
    def rows(self) -> int:
        """How many rows all lines take."""
        ends = self._row_ends()
        return ends[-1] if ends else 0

    def add(self, lines: Sequence[Line], skipped: int = 0) -> None:
        """Take lines in at the end, after `skipped` others that are not kept."""
        if skipped:
            self.first, self._lines, self._heights = self.end + skipped, [], []
        kept = lines[-self._limit :]
        self._lines += kept
        self._heights += map(self._height, kept)
        self.first += len(lines) - len(kept)
        over = max(len(self._lines) - self._limit, 0)
        del self._lines[:over], self._heights[:over]
        self.first += over
        self._ends = None
        self._search_from(self.end - len(kept))

    def line(self, number: int) -> Line:
        """A line by its number; what stands for those that are no longer kept before the oldest one."""
        if number >= self.first:
            return self._lines[number - self.first]
        return [(f"-- {plural(self.first, 'older line')} not kept --", "muted")]

    def wrap(self, width: int | None) -> None:
        """Lay the lines out in rows of this many cells; None gives each one row."""
        if width != self._width:
            self._width = width
            self._heights = [self._height(line) for line in self._lines]
            self._ends = None

    def row_of(self, place: Place) -> int:
        """The row that a place is on; one that is no longer kept is where the oldest is, one behind all the last."""
        ends = self._row_ends()
        if place.number < self.begin or not ends:
            return 0
        index = place.number - self.begin
        if index >= len(ends):
            return ends[-1] - 1
        above = ends[index - 1] if index else 0
        return above + min(place.row, ends[index] - above - 1)

    def place_of(self, row: int) -> Place:
        """What is on a row; the last row for one below all."""
        ends = self._row_ends()
        row = max(min(row, self.rows - 1), 0)
        index = bisect_right(ends, row)
        return Place(self.begin + index, row - (ends[index - 1] if index else 0))

    def search(self, query: str) -> None:
        """Find the lines that have this text; none is searched for with an empty one."""
        self._query, self._found = query, []
        self._search_from(self.first)

    @property
    def found(self) -> Sequence[int]:
        """The numbers of the lines that are kept and have the text that was searched for."""
        return self._found

    def next_found(self, number: int, step: int) -> int | None:
        """The next line found after a number, or before it where `step` is -1; from the other end on past the last."""
        if not self._found:
            return None
        position = bisect_right(self._found, number) if step > 0 else bisect_left(self._found, number) - 1
        return self._found[position % len(self._found)]

    def rank_of(self, number: int) -> int:
        """Which of the lines found a line is, counted from 1."""
        return bisect_right(self._found, number)

    def _search_from(self, number: int) -> None:
        del self._found[: bisect_left(self._found, self.first)]
        if self._query:
            finds = pattern(self._query)
            begin = max(number, self.first)
            lines = enumerate(self._lines[begin - self.first :], begin)
            self._found += [n for n, line in lines if finds.search(text_of(line))]

    def _height(self, line: Line) -> int:
        return 1 if self._width is None else height(line, self._width)

    def _row_ends(self) -> list[int]:
        """Behind which row each line ends, that of the older ones among them."""
        if self._ends is None:
            older = [1] if self.first else []
            self._ends = list(accumulate(older + self._heights))
        return self._ends
