"""The event pane: what happened on the host, newest at the bottom."""

from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.geometry import Size
from textual.strip import Strip

from forktui.model.world import World
from forktui.tui.widgets.inked import InkedScroll
from forktui.view.styled_lines import Ink, Line, fit
from supervisor.models import Activity, Level

LEVEL_INKS: dict[Level, Ink] = {"info": "muted", "warning": "warning", "alarm": "broken"}
_TIME_WIDTH = 9


class ActivityLog(InkedScroll):
    """The activities, which follow what happens until they are held or scrolled up."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "scroll_down", "Next line"),
        Binding("up,k", "scroll_up", "Previous line"),
        Binding("end,G", "scroll_end", "Newest"),
        Binding("home,g", "scroll_home", "Oldest"),
    ]

    def __init__(self) -> None:
        super().__init__(id="activity")
        self.held = False
        self._activities: tuple[Activity, ...] = ()
        self._shown_count = 0
        self._newer = 0
        self._at_end = True

    def show(self, world: World) -> None:
        """Draw the world's activities, or count the new ones while held."""
        if world.activity_count == self._shown_count:
            return
        if self.held:
            self._newer = world.activity_count - self._shown_count
            self._say_held()
            return
        self._activities, self._shown_count = world.activities, world.activity_count
        self.virtual_size = Size(self.size.width, len(self._activities))
        if self._at_end:
            self.call_after_refresh(self.scroll_end, animate=False)
        self.refresh()

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._at_end = new_value >= self.max_scroll_y

    def hold(self, held: bool, world: World) -> None:
        """Hold still, or follow again from the newest."""
        self.held, self._newer = held, 0
        self._say_held()
        if not held:
            self._at_end = True
            self.show(world)
            self.scroll_end(animate=False)

    def on_resize(self) -> None:
        self.virtual_size = Size(self.size.width, len(self._activities))
        if self._at_end:
            self.call_after_refresh(self.scroll_end, animate=False)

    def render_line(self, y: int) -> Strip:
        width = self.scrollable_content_region.width
        position = y + round(self.scroll_y)
        if not self._activities and y == 0:
            return self.strip([("Nothing has happened since this dashboard was opened", "muted")], width)
        if position >= len(self._activities):
            return self.strip([], width)
        return self.strip(self._line(self._activities[position], width), width)

    def _line(self, activity: Activity, width: int) -> Line:
        ink = LEVEL_INKS[activity.level]
        time = activity.at.astimezone().strftime("%H:%M:%S")
        message = fit(activity.message, width - _TIME_WIDTH - 2, self.glyphs.ellipsis)
        return [
            (f"{time} ", "muted"),
            (f"{self.glyphs.levels[activity.level]} ", ink),
            (message, "plain" if activity.level == "info" else ink),
        ]

    def _say_held(self) -> None:
        self.border_title = f"events: held, {self._newer} newer (p follows)" if self.held else "events"
