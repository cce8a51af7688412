"""Words in a dialog, wrapped; as ASCII where the terminal has no more."""

from rich.text import Text
from textual.widgets import Static

from forktui.text.safe import ascii_text
from forktui.tui.widgets.inked import Inked
from forktui.view.glyphs import ASCII


class Prose(Static, Inked):
    """Safe text, never markup; it takes no room while there is none."""

    def __init__(self, text: str = "", *, classes: str = "") -> None:
        super().__init__(classes=classes)
        self._text = text

    def on_mount(self) -> None:
        self._show()

    def say(self, text: str) -> None:
        """Replace the words."""
        if text != self._text:
            self._text = text
            if self.is_attached:
                self._show()

    def _show(self) -> None:
        self.display = bool(self._text)
        self.update(Text(ascii_text(self._text) if self.glyphs is ASCII else self._text))
