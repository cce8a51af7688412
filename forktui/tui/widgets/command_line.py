"""The `:` line: a word and what follows it, with what it may be, and what is wrong with it, below."""

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Input

from forktui.actions.command_line import completed, completions, usage
from forktui.model.world import World
from forktui.text.quantities import names
from forktui.tui.widgets.prose import Prose
from forktui.tui.widgets.text_field import TextField

SHOWN_COMPLETIONS = 8


class CommandLine(Vertical):
    """Typed below the tree: Tab completes, Up and Down repeat what was said, Escape leaves."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "complete", "Complete", show=False),
        Binding("up", "repeat(-1)", "The one before", show=False),
        Binding("down", "repeat(1)", "The one after", show=False),
        Binding("escape", "leave", "Leave", show=False),
    ]

    class Said(Message):
        """A line was said."""

        def __init__(self, line: str) -> None:
            super().__init__()
            self.line = line

    class Left(Message):
        """It is not typed any more."""

    def __init__(self, world: Callable[[], World]) -> None:
        super().__init__(id="command-line")
        self._world = world
        self._field = TextField()
        self._hint = Prose(classes="hint")
        self._said: list[str] = []
        self._at = 0

    def compose(self) -> ComposeResult:
        with Horizontal(classes="line"):
            yield Prose(":", classes="prompt")
            yield self._field
        yield self._hint

    def on_mount(self) -> None:
        self.display = False

    def open(self) -> None:
        """Let a line be typed."""
        self._field.value = ""
        self._at = len(self._said)
        self._hint.say("")
        self.display = True
        self._field.focus()

    def close(self) -> None:
        """Do away with the line; it is remembered."""
        self.display = False

    def refuse(self, reason: str) -> None:
        """Say what is wrong with the line, which stays to be mended."""
        self._hint.add_class("refused")
        self._hint.say(reason)

    @on(Input.Changed)
    def _changed(self) -> None:
        self._hint.remove_class("refused")
        self._hint.say(usage(self._field.value))

    @on(Input.Submitted)
    def _submitted(self, event: Input.Submitted) -> None:
        event.stop()
        line = event.value.strip()
        if line and self._said[-1:] != [line]:
            self._said.append(line)
        self._at = len(self._said)
        self.post_message(self.Said(line))

    def action_complete(self) -> None:
        line, world = self._field.value, self._world()
        found = completions(line, world)
        self._put(completed(line, world))
        self._hint.remove_class("refused")
        if len(found) != 1:
            self._hint.say(names(found, shown=SHOWN_COMPLETIONS) or usage(line) or "no word begins so")

    def action_repeat(self, steps: int) -> None:
        self._at = min(max(self._at + steps, 0), len(self._said))
        self._put(self._said[self._at] if self._at < len(self._said) else "")

    def action_leave(self) -> None:
        self.post_message(self.Left())

    def _put(self, line: str) -> None:
        with self._field.prevent(Input.Changed):
            self._field.value = line
        self._field.cursor_position = len(line)
