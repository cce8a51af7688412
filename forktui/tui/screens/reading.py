"""Screens to read, such as the help."""

from collections.abc import Sequence
from typing import ClassVar

from rich.cells import cell_len
from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from forktui.model.world import World
from forktui.tui.sparing import Sparing
from forktui.tui.widgets.inked import Painting
from forktui.tui.widgets.lines_view import LinesView
from forktui.view.styled_lines import Line, line_width

READING_MARGIN = 12
"""The cells of the screen's width that are not the text's: border, padding, scrollbar and what shows beside it."""
READING_WIDTH = 100


class Words(Painting):
    """A line of words, and at its right end as many others, two blanks apart, as there is room for."""

    def __init__(self, begin: Line, end: str = "") -> None:
        super().__init__()
        self._begin = begin
        self._end = end.split("  ")

    def say(self, begin: Line) -> None:
        """Draw other words."""
        self._begin = begin
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        room = width - line_width(self._begin)
        # The last words are what nobody can do without.
        ends = ("  ".join(self._end[begin:]) for begin in range(len(self._end)))
        end = next((end for end in ends if cell_len(end) + 2 <= room), "")
        return [[*self._begin, (" " * (room - cell_len(end)), "plain"), (end, "muted")]]


class Reading(Sparing, ModalScreen[None]):
    """Lines over the dashboard, until Escape or q; `view` has them where they are no text that stays as it is."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,question_mark,c", "dismiss", "Close"),
        Binding("enter", "whole", "The whole terminal, or a part of it"),
    ]
    KEYS: ClassVar[str] = "/ finds  w wraps  Enter whole screen  Esc closes"

    def __init__(self, heading: str, lines: Sequence[Line] = (), view: LinesView | None = None) -> None:
        super().__init__()
        self.view = view or LinesView(lines, follows=False)
        self._heading = Words([(heading, "strong")])
        self._told = Words([], self.KEYS)

    def compose(self) -> ComposeResult:
        with Vertical(classes="reading"):
            yield self._heading
            yield self.view
            yield self._told

    def on_mount(self) -> None:
        self._say()

    def show(self, world: World) -> None:
        """Draw what has become of what is read."""

    def action_whole(self) -> None:
        self.toggle_class("whole")

    @on(LinesView.Told)
    def _say(self) -> None:
        self._told.say(self.view.told())
