"""The alarms in full, with a cursor."""

from datetime import datetime
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.strip import Strip

from forktui.model.alarms import Alarm
from forktui.model.world import World
from forktui.tui.widgets.inked import InkedScroll
from forktui.view.alarms import in_full
from forktui.view.styled_lines import Line

MOST = 500
"""Alarms that are listed; the status line counts all."""
NOTHING = "Nothing is wrong, and whatever was has been acknowledged."
NOTHING_KNOWN = "Nothing was wrong when the supervisor was heard of last; nobody knows since."


class AlarmList(InkedScroll):
    """A few lines for each alarm; the cursor stays on its alarm."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Next alarm"),
        Binding("up,k", "move(-1)", "Previous alarm"),
        Binding("pagedown,ctrl+f", "move(5)", "Some further"),
        Binding("pageup,ctrl+b", "move(-5)", "Some back"),
        Binding("home,g", "edge(0)", "First alarm"),
        Binding("end,G", "edge(-1)", "Last alarm"),
    ]

    def __init__(self) -> None:
        super().__init__()
        self._alarms: list[Alarm] = []
        self._now: datetime | None = None
        self._rows: list[tuple[int, Line]] = []
        """The lines, each with the place of its alarm."""
        self._number = 0
        self._place = 0
        self._stale = False

    @property
    def chosen(self) -> Alarm | None:
        """The alarm under the cursor."""
        return self._alarms[self._place] if self._alarms else None

    def show(self, world: World, *, stale: bool = False) -> None:
        """List the alarms of a world, of which what is known may be old."""
        if stale != self._stale:
            self._stale = stale
            self.refresh()
        alarms = world.alarms.listed(MOST)
        if alarms != self._alarms or not self._rows:
            self._alarms, self._now = alarms, world.heard_at
            numbers = [alarm.number for alarm in alarms]
            # Where its alarm has gone, the cursor is on what took the place.
            found = numbers.index(self._number) if self._number in numbers else self._place
            self._place = max(min(found, len(alarms) - 1), 0)
            self._lay_out()

    def on_resize(self) -> None:
        self._lay_out()

    def on_click(self, event: events.Click) -> None:
        row = event.y + round(self.scroll_y)
        if row < len(self._rows):
            self._go_to(self._rows[row][0])

    def action_move(self, alarms: int) -> None:
        self._go_to(self._place + alarms)

    def action_edge(self, place: int) -> None:
        self._go_to(place if place >= 0 else len(self._alarms) - 1)

    def render_line(self, y: int) -> Strip:
        width, row = self.scrollable_content_region.width, y + round(self.scroll_y)
        if not self._rows and not y:
            return self.strip([(NOTHING_KNOWN, "warning") if self._stale else (NOTHING, "muted")], width)
        if row >= len(self._rows):
            return self.strip([], width)
        place, line = self._rows[row]
        return self.strip(line, width, self.inks["cursor"] if place == self._place else None)

    def _go_to(self, place: int) -> None:
        self._place = max(min(place, len(self._alarms) - 1), 0)
        self._follow()
        self.refresh()

    def _follow(self) -> None:
        """Have all lines of the alarm under the cursor on the screen."""
        if self.chosen is None:
            return
        self._number = self.chosen.number
        rows = [row for row, (place, _) in enumerate(self._rows) if place == self._place]
        height = max(self.size.height, 1)
        if rows and rows[0] < self.scroll_y:
            self.scroll_to(y=rows[0], animate=False)
        elif rows and rows[-1] >= self.scroll_y + height:
            self.scroll_to(y=min(rows[0], rows[-1] - height + 1), animate=False)

    def _lay_out(self) -> None:
        width = max(self.scrollable_content_region.width, 20)
        self._rows = [
            (place, line) for place, alarm in enumerate(self._alarms) for line in in_full(alarm, width, self._now)
        ]
        self.set_line_count(len(self._rows))
        self._follow()
        self.refresh()
