"""The footer: the keys of the actions, dimmed where they would be refused."""

from collections.abc import Sequence

from textual import events
from textual.message import Message

from forktui.model.actions import Action
from forktui.tui.widgets.inked import Painting
from forktui.view.styled_lines import Line, joined, line_width


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
        self._marked = 0
        self._cells: list[tuple[range, Action]] = []

    def show(self, offers: Sequence[tuple[Action, bool]], marked: int) -> None:
        """Draw each action, and whether it can be done on the `marked` instances or the one under the cursor."""
        if (offers, marked) != (self._offers, self._marked):
            self._offers, self._marked = offers, marked
            self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        line: Line = [(f" {self._marked} marked ", "mark"), (" ", "plain")] if self._marked else [(" ", "plain")]
        entries: list[Line] = [
            [(action.key, "key" if possible else "guide"), (f" {action.label}", "plain" if possible else "guide")]
            for action, possible in self._offers
        ]
        between = "  "
        if line_width(line) + line_width(joined(entries, (between, "plain"))) > width:
            between = " "
        self._cells = []
        begin = line_width(line)
        for (action, _), entry in zip(self._offers, entries, strict=True):
            end = begin + line_width(entry)
            self._cells.append((range(begin, end), action))
            begin = end + len(between)
        return [[*line, *joined(entries, (between, "plain"))]]

    def on_click(self, event: events.Click) -> None:
        event.stop()
        for cells, action in self._cells:
            if event.x in cells:
                self.post_message(self.Clicked(action))
