"""The footer: the keys of the actions, dimmed where they would be refused."""

from collections.abc import Sequence

from forktui.actions.action import Action
from forktui.tui.widgets.inked import Painting
from forktui.view.styled_lines import Line, joined, line_width

KEPT = 2
"""The last of the actions, help and quit, are there at any width: the help has the others."""


class KeyBar(Painting):
    """One line of keys; their places never change, so that a hand finds them."""

    def __init__(self) -> None:
        super().__init__(id="keys")
        self._offers: Sequence[tuple[Action, bool]] = ()
        self._marked = 0

    def show(self, offers: Sequence[tuple[Action, bool]], marked: int) -> None:
        """Draw each action, and whether it can be done on the `marked` instances or the one under the cursor."""
        if (offers, marked) != (self._offers, self._marked):
            self._offers, self._marked = offers, marked
            self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        line: Line = [(f" {self._marked} marked ", "mark"), (" ", "plain")] if self._marked else [(" ", "plain")]
        entries: list[Line] = [
            [(action.key, "key" if possible else "guide"), (f" {action.name}", "plain" if possible else "guide")]
            for action, possible in self._offers
        ]
        room = width - line_width(line)
        for gap in ("  ", " "):
            shown = joined(entries, (gap, "plain"))
            if line_width(shown) <= room:
                return [[*line, *shown]]
        begin, end = entries[:-KEPT], entries[-KEPT:]
        more: Line = [(self.glyphs.ellipsis, "guide")]
        while begin and line_width(shown) > room:
            begin.pop()
            shown = joined([*begin, more, *end], (" ", "plain"))
        return [[*line, *shown]]
