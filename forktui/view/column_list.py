"""The list in which columns are chosen: which are shown, and why, or why not. Pure."""

from collections.abc import Mapping

from forktui.model.sorting import Sort
from forktui.view.columns import COLUMNS, NAME, Column
from forktui.view.glyphs import Glyphs
from forktui.view.styled_lines import Line, clipped, left, line_width
from forktui.view.tree_lines import Layout

LISTED = (NAME, *COLUMNS)
_WORD_WIDTH = max(len(column.word) for column in LISTED) + 1
_REASON_WIDTH = len("always: no room") + 2


def column_line(
    column: Column, shape: Layout, choices: Mapping[str, str], sort: Sort, width: int, glyphs: Glyphs
) -> Line:
    """One column: whether it is shown, why, whether rows are sorted by it, and what it says; in `width` cells."""
    is_shown = column is NAME or column in shape.columns
    arrow = (glyphs.falling if sort.falling else glyphs.rising) if column.measure is sort.measure else " "
    line: Line = [
        ("[x] " if is_shown else "[ ] ", "key"),
        (left(column.word, _WORD_WIDTH), "strong" if is_shown else "plain"),
        (f"{arrow} ", "strong"),
        (left(_reason(column, shape, choices), _REASON_WIDTH), "muted"),
        (column.says, "plain" if is_shown else "muted"),
    ]
    fitted = clipped(line, width, glyphs.ellipsis)
    return [*fitted, (" " * (width - line_width(fitted)), "plain")]


def toggled(column: Column, shape: Layout, choices: Mapping[str, str]) -> dict[str, str]:
    """What is said of the columns once this one is shown where it is not, or hidden where it is."""
    if column is NAME:
        return dict(choices)
    is_wanted = choices.get(column.word) == "always" or column in shape.columns
    return {**choices, column.word: "never" if is_wanted else "always"}


def by_width(column: Column, choices: Mapping[str, str]) -> dict[str, str]:
    """What is said of the columns where nothing is said of this one."""
    return {word: choice for word, choice in choices.items() if word != column.word}


def _reason(column: Column, shape: Layout, choices: Mapping[str, str]) -> str:
    said = choices.get(column.word, "")
    if column is NAME or said == "never":
        return "always" if column is NAME else "never"
    if column in shape.missing:
        return f"{said}: no room" if said else "no room"
    return said or ("by width" if column in shape.columns else "nothing to show")
