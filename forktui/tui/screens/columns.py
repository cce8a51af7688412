"""The columns of the fork tree, to choose and to sort by; the tree behind them follows."""

from collections.abc import Mapping
from typing import ClassVar

from textual import events
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from forktui.tui.sparing import Sparing
from forktui.tui.widgets.fork_tree import ForkTree
from forktui.tui.widgets.inked import Painting
from forktui.tui.widgets.prose import Prose
from forktui.view.column_list import LISTED, by_width, column_line, toggled
from forktui.view.columns import Column
from forktui.view.styled_lines import Line

_BOX = range(4)
"""The cells of a line that show or hide its column when they are clicked."""

_AROUND = 6
"""The lines of a small screen that are not the list's: border, heading, and what the keys do."""


class ColumnList(Painting, can_focus=True):
    """A line for each column, and a cursor."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Next", show=False),
        Binding("up,k", "move(-1)", "Previous", show=False),
        Binding("home,g", "move(-99)", "First", show=False),
        Binding("end,G", "move(99)", "Last", show=False),
        Binding("space,enter", "show", "Show or hide it", show=False),
        Binding("w", "by_width", "Show it where there is room", show=False),
        Binding("W", "all_by_width", "Show all where there is room", show=False),
        Binding("s", "sort", "Sort by it, or the other way round", show=False),
    ]

    def __init__(self, tree: ForkTree) -> None:
        super().__init__(id="columns")
        self._tree = tree
        self._cursor = 0

    @property
    def column(self) -> Column:
        """The column under the cursor."""
        return LISTED[self._cursor]

    def action_move(self, lines: int) -> None:
        self._cursor = min(max(self._cursor + lines, 0), len(LISTED) - 1)
        self.repaint()

    def action_show(self) -> None:
        self._choose(toggled(self.column, self._tree.shape, self._tree.columns))

    def action_by_width(self) -> None:
        self._choose(by_width(self.column, self._tree.columns))

    def action_all_by_width(self) -> None:
        self._choose({})

    def action_sort(self) -> None:
        self._tree.sort_by(self.column)
        self.repaint()

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        if at is not None and self._first(self.content_size.height) + at.y < len(LISTED):
            self._cursor = self._first(self.content_size.height) + at.y
            self.repaint()
            if at.x - 2 in _BOX:
                self.action_show()

    def paint(self, width: int, height: int) -> list[Line]:
        first, tree = self._first(height), self._tree
        lines: list[Line] = []
        for place, column in list(enumerate(LISTED))[first : first + height]:
            goes_on = (place == first > 0) or place == first + height - 1 < len(LISTED) - 1
            mark = self.glyphs.closed if place == self._cursor else self.glyphs.deeper if goes_on else " "
            line = column_line(column, tree.shape, tree.columns, tree.shown.view.sort, width - 2, self.glyphs)
            lines.append([(f"{mark} ", "mark"), *line])
        return lines

    def _first(self, height: int) -> int:
        """The column on the first line, so that the cursor is on one."""
        return min(max(self._cursor - height // 2, 0), max(len(LISTED) - height, 0))

    def _choose(self, choices: Mapping[str, str]) -> None:
        self._tree.set_columns(choices)
        self.repaint()


class ColumnPicker(Sparing, ModalScreen[None]):
    """Chooses columns until Escape; what is chosen is kept."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,o", "leave", "Close")]

    def __init__(self, tree: ForkTree) -> None:
        super().__init__()
        self._tree = tree
        self._chosen = tree.columns

    def compose(self) -> ComposeResult:
        with Vertical(classes="dialog"):
            yield Prose("Columns", classes="question")
            yield ColumnList(self._tree)
            yield Prose("Space shows or hides, w by width, W all by width, s sorts, Esc ends", classes="hint")

    def on_resize(self) -> None:
        self.query_one(ColumnList).styles.height = min(len(LISTED), max(self.size.height - _AROUND, 1))

    def action_leave(self) -> None:
        if self._tree.columns != self._chosen:
            self._tree.keep_columns()
        self.dismiss()
