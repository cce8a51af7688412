"""The lines of the fork tree: which columns have room, the titles above them, and one line for each row. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from rich.cells import cell_len

from forktui.model.filter import Filter
from forktui.model.forest import Forest
from forktui.model.sorting import Sort
from forktui.model.tree_rows import Row
from forktui.model.world import World
from forktui.text.quantities import count
from forktui.view.columns import COLUMNS, NAME, Column
from forktui.view.glyphs import Glyphs
from forktui.view.rows import marked
from forktui.view.styled_lines import Ink, Line, Piece, clipped, fit, left, line_width, right
from supervisor.models import Instance

MIN_NAME_WIDTH: Final = 16
"""What names have at least, and above what a narrow terminal's columns are shown."""
GOOD_NAME_WIDTH: Final = 24
"""What names have before columns are shown that can be done without."""
NEEDED_RANK: Final = 5
"""Columns of a higher rank can be done without."""
GUIDE_LEVELS: Final = 8
"""How many levels above a row are drawn at most; of a deeper row it says how deep it is."""

Choice = Literal["always", "never"]
"""What its user has said of a column; of which nothing is said, it is there where it has room and applies."""


@dataclass(frozen=True)
class Layout:
    """How a width is shared out: the name's cells, the columns, and those for which there is no room."""

    name_width: int
    columns: tuple[Column, ...]
    missing: tuple[Column, ...] = ()
    wider: Column | None = None
    """What is sorted by has a cell more, where there is one: else the arrow at its title could be the one before's."""

    def width_of(self, column: Column) -> int:
        """The cells of a column."""
        return column.width + (column is self.wider)


def layout(
    width: int, choices: Mapping[str, str] | None = None, world: World | None = None, sort: Sort | None = None
) -> Layout:
    """The columns for a line of `width` cells, one cell between any two; names have what is left."""
    chosen = tuple(sorted((choices or {}).items()))
    idle = () if world is None else tuple(column.word for column in COLUMNS if not column.applies(world))
    measure = None if sort is None else sort.measure
    by = next((column.word for column in COLUMNS if column.measure is measure), "")
    return _layout(width, chosen, idle, by)


@lru_cache(maxsize=64)
def _layout(width: int, choices: tuple[tuple[str, str], ...], idle: tuple[str, ...], by: str) -> Layout:
    said = dict(choices)

    def turn(column: Column) -> tuple[bool, int]:
        return said.get(column.word) != "always", column.rank

    wanted = [one for one in COLUMNS if said.get(one.word) != "never"]
    wanted = [one for one in wanted if one.word not in idle or said.get(one.word) == "always"]
    room, fitting = width, set()
    for column in sorted(wanted, key=turn):
        needed = column.rank <= NEEDED_RANK or said.get(column.word) == "always"
        if room - column.width - 1 >= (MIN_NAME_WIDTH if needed else GOOD_NAME_WIDTH):
            room -= column.width + 1
            fitting.add(column.word)
    columns = tuple(column for column in wanted if column.word in fitting)
    missing = tuple(column for column in wanted if column.word not in fitting)
    wider = next((one for one in columns if one.word == by and room > MIN_NAME_WIDTH), None)
    return Layout(max(1, room - (wider is not None)), columns, missing, wider)


def header(shape: Layout, sort: Sort, glyphs: Glyphs) -> Line:
    """The titles above the columns, with an arrow at what is sorted by."""
    arrow = glyphs.falling if sort.falling else glyphs.rising
    by = next((column for column in (NAME, *COLUMNS) if column.measure is sort.measure), NAME)
    line: Line = [_name_title(shape, by, sort, arrow)]
    for column in shape.columns:
        title: Piece = (f" {column.title}", "title")
        if column is by:
            title = (f"{' ' if column is shape.wider else ''}{arrow}{column.title}", "strong")
        align = right if column.numeric else left
        line.append((align(title[0], shape.width_of(column) + 1), title[1]))
    return line


def _name_title(shape: Layout, by: Column, sort: Sort, arrow: str) -> Piece:
    words = [f"{NAME.title} {arrow}"] if by is NAME else [NAME.title]
    if by is not NAME and by not in shape.columns and sort != Sort():
        words = [f"{NAME.title} (by {by.word} {arrow})", f"by {by.word} {arrow}"]
    if sort.summed:
        words = [f"{words[0]}, trees summed", f"{words[0]}, sums", f"{by.word}, sums", *words]
    fitting = (one for one in words if len(one) < shape.name_width)
    return left(next(fitting, words[-1]), shape.name_width), "strong" if by not in shape.columns else "title"


def column_at(shape: Layout, cell: int) -> Column | None:
    """The column whose title is on a cell of the header; None behind the last."""
    end = shape.name_width
    for column in (NAME, *shape.columns):
        end += shape.width_of(column) + 1 if column is not NAME else 0
        if cell < end:
            return column
    return None


def row_line(world: World, forest: Forest, position: int, shape: Layout, glyphs: Glyphs) -> Line:
    """One instance's line."""
    row = forest.rows[position]
    instance = world.instances[row.id]
    line = _name(instance, forest, position, shape.name_width, glyphs)
    for column in shape.columns:
        text, ink = _cell(column, world, instance, forest, glyphs)
        if column.numeric:
            line.append((" " + right(text, shape.width_of(column), glyphs.ellipsis), ink))
        else:
            line += _word(text, ink, shape.width_of(column), glyphs)
    return line


def _cell(column: Column, world: World, instance: Instance, forest: Forest, glyphs: Glyphs) -> Piece:
    """What a column shows of an instance; the sum over all below it too where that is what it is sorted by."""
    sort = forest.view.sort
    if not sort.summed or column.measure is not sort.measure or instance.id not in forest.sums:
        return column.cell(world, instance, glyphs)
    value = forest.sums[instance.id]
    return (column.amount(value), "strong") if value else (glyphs.none, "guide")


def _word(text: str, ink: Ink, width: int, glyphs: Glyphs) -> Line:
    """A word at the left of its column; a badge's ink ends where the badge does."""
    fitted = fit(text, width, glyphs.ellipsis)
    return [(" ", "plain"), (fitted, ink), (" " * (width - cell_len(fitted)), "plain")]


def _name(instance: Instance, forest: Forest, position: int, width: int, glyphs: Glyphs) -> Line:
    rows = forest.rows
    row = rows[position]
    guide = guides(rows, position, _levels(width, row.depth), glyphs)
    arrow = ""
    if row.descendants:
        arrow = f"{glyphs.opened if row.expanded else glyphs.closed} "
    hidden = f" +{count(row.descendants)}" if row.descendants and not row.expanded else ""
    ink: Ink = "muted" if not row.matches else "strong" if row.descendants else "plain"
    room = max(width - len(guide) - len(arrow) - len(hidden), 1)
    # Brackets, since a colour alone tells nothing to who sees none.
    name = fit(instance.name if row.matches else f"({instance.name})", room, glyphs.ellipsis)
    named: Line = [(name, ink)]
    if row.matches and (looked_for := _pattern(forest.view.filter)) is not None:
        named = marked(named, looked_for, "found")
    line = clipped([(guide, "guide"), (arrow, "muted"), *named, (hidden, "muted")], width, glyphs.ellipsis)
    return [*line, (" " * (width - line_width(line)), "plain")]


@lru_cache(maxsize=1)
def _pattern(looked_for: Filter) -> re.Pattern[str] | None:
    return looked_for.pattern


def arrow_cells(rows: Sequence[Row], position: int, shape: Layout, glyphs: Glyphs) -> range:
    """Where in a row's line the arrow is that closes and opens it; nowhere where nothing is below it."""
    row = rows[position]
    begin = len(guides(rows, position, _levels(shape.name_width, row.depth), glyphs))
    return range(begin, begin + 2 if row.descendants else begin)


def _levels(width: int, depth: int) -> int:
    """How many levels are drawn beside a name of this width: half of a narrow one is the name's own."""
    levels = max(1, min(GUIDE_LEVELS, (width - 8) // 3))
    if depth <= levels:
        return levels
    # How deep it is takes the place of some of them.
    return max(1, levels - (len(str(depth)) + 3) // 3)


def guides(rows: Sequence[Row], position: int, levels: int, glyphs: Glyphs) -> str:
    """The lines that join a row to its source, for the nearest `levels` levels."""
    parts: list[str] = []
    current = rows[position]
    while current.parent >= 0 and len(parts) < levels:
        last, inner = (glyphs.last_branch, glyphs.branch), (glyphs.gap, glyphs.bar)
        pair = inner if parts else last
        parts.append(pair[0] if current.last else pair[1])
        current = rows[current.parent]
    above = f"{rows[position].depth}{glyphs.deeper}" if current.parent >= 0 else ""
    return above + "".join(reversed(parts))
