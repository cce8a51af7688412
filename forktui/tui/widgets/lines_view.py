"""The pane of lines behind consoles, events and help: it follows its end until one scrolls up, wraps, and searches."""

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.strip import Strip

from forktui.text.quantities import count, named
from forktui.text.safe import safe_text
from forktui.tui.widgets.inked import InkedScroll
from forktui.view.kept_lines import KeptLines, Place
from forktui.view.rows import marked, pattern, shifted, wrapped
from forktui.view.styled_lines import Line, clipped

KEPT_LINES = 5000
QUERY_LIMIT = 80
SIDEWAYS = 8
WHEEL_ROWS = 3


class LinesView(InkedScroll):
    """Lines that somebody else has written.

    The row at the top is known by its line's number, not by how far it is from the first one: it stays where it is
    while lines come at the end and go at the beginning. `follows` shows the end until one scrolls up.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "rows(1)", "Next line"),
        Binding("up,k", "rows(-1)", "Previous line"),
        Binding("pagedown,ctrl+f,space", "page(1)", "A page down"),
        Binding("pageup,ctrl+b", "page(-1)", "A page up"),
        Binding("home,g", "first", "First line"),
        Binding("end,G", "last", "Last line, and follow"),
        Binding("left,h", "sideways(-1)", "To the left"),
        Binding("right,l", "sideways(1)", "To the right"),
        Binding("w", "wrap", "Wrap"),
        Binding("n", "found(1)", "Next match"),
        Binding("N", "found(-1)", "Match before"),
    ]

    class Told(Message):
        """Whether the pane follows, how many lines are newer, or what is searched for has changed."""

    def __init__(
        self,
        lines: Sequence[Line] = (),
        *,
        limit: int = KEPT_LINES,
        follows: bool = True,
        wraps: bool = True,
        empty: str = "",
        id: str | None = None,  # noqa: A002
    ) -> None:
        super().__init__(id=id)
        self.wraps = wraps
        self._kept = KeptLines(limit)
        self._kept.add(lines)
        self._limit = limit
        self._follows = follows
        self._empty = empty
        self._top: Place | None = None if follows else Place(0)
        self._left = 0
        self._query = ""
        self._typing = False
        self._current = -1
        self._drawn: dict[int, list[Line]] = {}
        self._drawn_width = 0
        self._placing = False

    @property
    def following(self) -> bool:
        """Whether the newest line is shown, and will be."""
        return self._top is None

    @property
    def newer(self) -> int:
        """How many lines there are below those that are shown."""
        if self._top is None:
            return 0
        last = self._kept.place_of(self._top_row() + self._height - 1)
        return max(self._kept.end - 1 - last.number, 0)

    @property
    def searching(self) -> bool:
        """Whether something is searched for, or being typed for that."""
        return self._typing or bool(self._query)

    @property
    def dropped(self) -> int:
        """How many lines are no longer kept."""
        return self._kept.first

    def on_mount(self) -> None:
        self._lay_out()

    def on_resize(self) -> None:
        self._lay_out()

    def add(self, lines: Sequence[Line], skipped: int = 0) -> None:
        """Take lines in at the end, after `skipped` others that nobody has seen."""
        if not lines and not skipped:
            return
        full = self._kept.rows - self._top_row() >= self._height
        self._kept.add(lines, skipped)
        if self._top is None:
            self._lay_out()
        elif not full or self._top.number < self._kept.begin:
            self.hold_at(max(self._top, Place(self._kept.begin)))
        self.post_message(self.Told())

    def replace(self, lines: Sequence[Line], first: int = 0) -> None:
        """Show other lines, of which the first has this number."""
        self._kept = KeptLines(self._limit)
        self._kept.add(lines, first)
        self._kept.search(self._query)
        self._lay_out()
        self.post_message(self.Told())

    def hold(self, held: bool) -> None:
        """Stay at what is shown, or follow the end."""
        self.hold_at(self._kept.place_of(self._top_row()) if held else None)

    def hold_at(self, place: Place | None) -> None:
        """Show a place at the top, and stay there; None follows the end."""
        self._top = place
        self._lay_out()
        self.post_message(self.Told())

    def told(self) -> Line:
        """What a line about the pane says."""
        line: Line = []
        if self._follows:
            newer = f"held, {count(self.newer)} newer (End follows)"
            line.append(("follows", "running") if self.following else (newer, "waiting"))
        if self.searching:
            line.append(("  " if line else "", "plain"))
            line += [
                ("/", "key"),
                (self._query, "strong"),
                ("_  " if self._typing else "  ", "key"),
                *self._told_found(),
            ]
        return line

    def _told_found(self) -> Line:
        if not self._query:
            return [("Enter ends, Esc leaves", "muted")]
        found = len(self._kept.found)
        if not found:
            return [("nothing matches", "warning")]
        lines = f"{count(found)} {named(found, 'line')}"
        rank = f"{self._kept.rank_of(self._current)} of " if self._current in self._kept.found else ""
        return [(f"{rank}{lines}", "plain"), ("" if self._typing else " (n N)", "muted")]

    def on_key(self, event: events.Key) -> None:
        # Not by bindings and an input: keys that are typed behind the slash would be on their way to the pane still.
        if self._typing and self._typed(event):
            self.post_message(self.Told())
        elif not self._typing and event.character == "/":
            self._typing = True
            self._search("")
        else:
            return
        event.stop()
        event.prevent_default()

    def on_paste(self, event: events.Paste) -> None:
        if self._typing:
            event.stop()
            self._search(self._query + safe_text(event.text, QUERY_LIMIT))

    def _typed(self, event: events.Key) -> bool:
        """Take a key into what is searched for; return whether it was one for that."""
        if event.key == "enter":
            self._typing = False
        elif event.key == "escape":
            self._typing = False
            self._search("")
        elif event.key in ("backspace", "ctrl+h"):
            self._search(self._query[:-1])
        elif event.key == "ctrl+u":
            self._search("")
        elif event.is_printable and event.character:
            self._search(self._query + event.character)
        else:
            return False
        return True

    def _search(self, query: str) -> None:
        self._query = query[:QUERY_LIMIT]
        self._kept.search(self._query)
        self._current = -1
        self._redraw()
        if self._query:
            # The newest one where the end is shown, else the first one from here on.
            top = self._kept.place_of(self._top_row()).number
            found = self._kept.next_found(self._kept.end, -1) if self.following else self._kept.next_found(top - 1, 1)
            self._go_to(found)
        self.post_message(self.Told())

    def action_found(self, step: int) -> None:
        here = self._kept.place_of(self._top_row()).number
        self._go_to(self._kept.next_found(self._current if self._current >= 0 else here - step, step))

    def _go_to(self, number: int | None) -> None:
        """Show a line that was found, in the middle where it is not on the screen."""
        if number is None:
            return
        self._current = number
        row, top = self._kept.row_of(Place(number)), self._top_row()
        self._redraw()
        if not top <= row < top + self._height:
            self._scroll_to_row(row - self._height // 2)
        self.post_message(self.Told())

    def action_rows(self, rows: int) -> None:
        self._scroll_to_row(self._top_row() + rows)

    def action_page(self, pages: int) -> None:
        self._scroll_to_row(self._top_row() + pages * max(self._height - 1, 1))

    def action_first(self) -> None:
        self.hold_at(Place(self._kept.begin))

    def action_last(self) -> None:
        self._scroll_to_row(self._kept.rows)

    def action_wrap(self) -> None:
        top = None if self.following else self._kept.place_of(self._top_row())
        self.wraps, self._left = not self.wraps, 0
        self.hold_at(top)

    def action_sideways(self, step: int) -> None:
        if not self.wraps:
            self._left = max(self._left + step * SIDEWAYS, 0)
            self._redraw()

    def on_mouse_scroll_down(self, event: events.MouseScrollDown) -> None:
        event.stop()
        event.prevent_default()
        self.action_rows(WHEEL_ROWS)

    def on_mouse_scroll_up(self, event: events.MouseScrollUp) -> None:
        event.stop()
        event.prevent_default()
        self.action_rows(-WHEEL_ROWS)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if not self._placing and round(new_value) != self._top_row():
            self._scroll_to_row(round(new_value))

    def render_line(self, y: int) -> Strip:
        # It may be drawn in another size before it is told of that.
        self._give_rows()
        width, row = self._width, self._top_row() + y
        if row >= self._kept.rows:
            return self.strip([(self._empty, "muted")] if not (self._kept.rows or y) else [], width)
        place = self._kept.place_of(row)
        if place.number not in self._drawn:
            if len(self._drawn) > 2 * self._height:
                self._drawn.clear()
            self._drawn[place.number] = self._draw(place.number)
        return self.strip(self._drawn[place.number][place.row], width)

    def _draw(self, number: int) -> list[Line]:
        """The rows of a line."""
        line = self._kept.line(number)
        if self._query and number >= self._kept.first:
            line = marked(line, pattern(self._query), "found here" if number == self._current else "found")
        if number < self._kept.first or not self.wraps:
            return [clipped(shifted(line, self._left, self.glyphs.ellipsis), self._width, self.glyphs.ellipsis)]
        return wrapped(line, self._width)

    def _scroll_to_row(self, row: int) -> None:
        end = max(self._kept.rows - self._height, 0)
        at_end = self._follows and row >= end
        self.hold_at(None if at_end else self._kept.place_of(max(min(row, end), 0)))

    def _top_row(self) -> int:
        if self._top is None:
            return max(self._kept.rows - self._height, 0)
        return self._kept.row_of(self._top)

    @property
    def _width(self) -> int:
        return max(self.scrollable_content_region.width, 1)

    @property
    def _height(self) -> int:
        return max(self.scrollable_content_region.height, 1)

    def _redraw(self) -> None:
        self._drawn.clear()
        self.refresh()

    def _lay_out(self) -> None:
        """Give each line its rows, and the scroll bar its place."""
        self._give_rows()
        self._placing = True
        self.set_line_count(self._kept.rows)
        self.scroll_to(y=self._top_row(), animate=False, force=True)
        self._placing = False
        self._redraw()

    def _give_rows(self) -> None:
        width = self._width
        if width != self._drawn_width:
            self._drawn_width = width
            self._drawn.clear()
        self._kept.wrap(width if self.wraps else None)
