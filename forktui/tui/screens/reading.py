"""Screens to read: the help, and a guest's console."""

from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen
from textual.timer import Timer
from textual.widgets import Static

from forktui.client.api import ApiError, SupervisorUnreachableError
from forktui.text.remedies import in_dashboard
from forktui.text.safe import safe_text
from forktui.tui.widgets.lines_view import LinesView
from forktui.view.styled_lines import Ink, Line

CONSOLE_LINES = 500
CONSOLE_LINE_LIMIT = 2000
PRINT_SECONDS = 0.1
READING_MARGIN = 12
"""The cells of the screen's width that are not the text's: border, padding, scrollbar and what shows beside it."""
READING_WIDTH = 100


class Reading(ModalScreen[None]):
    """Lines over the dashboard, until Escape or q."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,q,question_mark,c", "dismiss", "Close")]

    def __init__(self, heading: str, lines: Sequence[Line] = ()) -> None:
        super().__init__()
        self._heading = heading
        self.view = LinesView(lines)

    def compose(self) -> ComposeResult:
        with Vertical(classes="reading"):
            yield Static(Text(self._heading, no_wrap=True, overflow="ellipsis"), classes="question")
            yield self.view
            yield Static(Text("Esc closes"), classes="hint")


class Console(Reading):
    """What a guest prints, while it prints it."""

    def __init__(self, name: str, follow: Callable[[], AsyncIterator[str]]) -> None:
        super().__init__(f"Console of {name}")
        self._follow = follow
        self._printed: deque[Line] = deque(maxlen=CONSOLE_LINES)
        self._due: Timer | None = None

    def on_mount(self) -> None:
        self.run_worker(self._read(), exit_on_error=False)

    async def _read(self) -> None:
        try:
            async for line in self._follow():
                self._print(safe_text(line, CONSOLE_LINE_LIMIT))
            self._print("-- the console has ended --")
        except (ApiError, SupervisorUnreachableError) as error:
            self._print(f"-- {in_dashboard(error)} --")

    def _print(self, line: str) -> None:
        ink: Ink = "broken" if "CORRUPT" in line else "plain"
        self._printed.append([(line, ink)])
        # A guest may print faster than a terminal shows: what has come is drawn together.
        if self._due is None:
            self._due = self.set_timer(PRINT_SECONDS, self._show)

    def _show(self) -> None:
        self._due = None
        self.view.set_lines(list(self._printed))
