"""A line to type into, and one of several words to choose from."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message
from textual.widgets import Input

from forktui.tui.widgets.inked import Painting
from forktui.view.styled_lines import Line, fit, line_width


class TextField(Input):
    """One line that is typed. What it may not be is said beside it: nothing that is typed is dropped."""

    def __init__(self, value: str = "", placeholder: str = "", *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(value, placeholder, id=id, compact=True)
        # What blinks is drawn for nobody who looks, also over a slow line.
        self.cursor_blink = False


class Choice(Painting, can_focus=True):
    """One of several words, which Left, Right and Space change."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("left,h", "move(-1)", "The one before", show=False),
        Binding("right,l,space", "move(1)", "The next", show=False),
    ]

    class Changed(Message):
        """Another is chosen."""

    def __init__(self, choices: Sequence[str], value: str, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.choices = tuple(choices)
        self.value = value

    def offer(self, choices: Sequence[str]) -> None:
        """Replace what may be chosen; what was chosen is never another by itself."""
        self.choices = tuple(choices) if self.value in choices else (self.value, *choices)
        self.repaint()

    def action_move(self, steps: int) -> None:
        self.value = self.choices[(self.choices.index(self.value) + steps) % len(self.choices)]
        self.repaint()
        self.post_message(self.Changed())

    def paint(self, width: int, height: int) -> list[Line]:
        line: Line = []
        for word in self.choices:
            line += [(f"[{word}]", "strong")] if word == self.value else [(f" {word} ", "muted")]
        if line_width(line) <= width:
            return [line]
        of = f" {self.choices.index(self.value) + 1} of {len(self.choices)}"
        return [[(f"[{fit(self.value, width - len(of) - 2, self.glyphs.ellipsis)}]", "strong"), (of, "muted")]]
