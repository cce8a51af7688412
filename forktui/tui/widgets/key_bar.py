"""The footer: the keys of the actions, dimmed where they would be refused."""

from collections.abc import Sequence

from textual import events
from textual.message import Message

from forktui.actions.action import Action
from forktui.tui.widgets.inked import Painting
from forktui.view.styled_lines import Line, joined, line_width

KEPT = 2
"""The last of the actions, help and quit, are there at any width: the help has the others."""


class KeyBar(Painting):
    """One line of keys; their places never change, so that a hand finds them."""

    class Clicked(Message):
        """The mouse has pressed an action's key."""

        def __init__(self, action: Action) -> None:
            super().__init__()
            self.action = action

    def __init__(self) -> None:
        super().__init__(id="keys")
        self._offers: Sequence[tuple[Action, bool]] = ()
        self._marked = ""
        self._cells: list[tuple[range, Action]] = []

    def show(self, offers: Sequence[tuple[Action, bool]], marked: int, hidden: int) -> None:
        """Draw each action, and whether it can be done on the `marked` instances or the one under the cursor.

        Of those that are marked so many are `hidden`: actions are done to them too.
        """
        told = f"{marked} marked" + (f", {hidden} not shown" if hidden else "") if marked else ""
        if (offers, told) != (self._offers, self._marked):
            self._offers, self._marked = offers, told
            self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        line: Line = [(f" {self._marked} ", "mark"), (" ", "plain")] if self._marked else [(" ", "plain")]
        entries: list[Line] = [
            [(action.key, "key" if possible else "guide"), (f" {action.name}", "plain" if possible else "guide")]
            for action, possible in self._offers
        ]
        room = width - line_width(line)
        self._cells = []
        for gap in ("  ", " "):
            shown = joined(entries, (gap, "plain"))
            if line_width(shown) <= room:
                self._place(line_width(line), entries, [action for action, _ in self._offers], len(gap))
                return [[*line, *shown]]
        kept, begin, end = len(entries) - KEPT, entries[:-KEPT], entries[-KEPT:]
        more: Line = [(self.glyphs.ellipsis, "guide")]
        while begin and line_width(shown) > room:
            begin.pop()
            shown = joined([*begin, more, *end], (" ", "plain"))
        actions = [action for action, _ in self._offers]
        self._place(line_width(line), [*begin, more, *end], [*actions[: len(begin)], None, *actions[kept:]], 1)
        return [[*line, *shown]]

    def _place(self, begin: int, entries: Sequence[Line], actions: Sequence[Action | None], gap: int) -> None:
        """Note which cells are whose."""
        for entry, action in zip(entries, actions, strict=True):
            end = begin + line_width(entry)
            if action is not None:
                self._cells.append((range(begin, end), action))
            begin = end + gap

    def on_click(self, event: events.Click) -> None:
        event.stop()
        for cells, action in self._cells:
            if event.x in cells:
                self.post_message(self.Clicked(action))
