"""A scrollable list of lines."""

from collections.abc import Sequence
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.strip import Strip

from forktui.tui.widgets.inked import InkedScroll
from forktui.view.styled_lines import Line, line_width


class LinesView(InkedScroll):
    """Lines that somebody else has written; wider ones scroll sideways."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("j", "scroll_down", "Next line"),
        Binding("k", "scroll_up", "Previous line"),
        Binding("g", "scroll_home", "First line"),
        Binding("G", "scroll_end", "Last line"),
    ]

    def __init__(self, lines: Sequence[Line] = ()) -> None:
        super().__init__()
        self._lines = list(lines)

    def on_mount(self) -> None:
        self._measure()

    def set_lines(self, lines: Sequence[Line]) -> None:
        """Replace the lines; the view stays at the end where it was there."""
        at_end = self.scroll_y >= self.max_scroll_y
        self._lines = list(lines)
        self._measure()
        if at_end:
            self.scroll_end(animate=False, immediate=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        scroll_x, scroll_y = self.scroll_offset
        position = y + scroll_y
        line = self._lines[position] if position < len(self._lines) else []
        width = self.size.width
        return self.strip(line, max(width + scroll_x, line_width(line))).crop(scroll_x, scroll_x + width)

    def _measure(self) -> None:
        self.virtual_size = Size(max(map(line_width, self._lines), default=0), len(self._lines))
