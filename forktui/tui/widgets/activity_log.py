"""The event pane: what happened on the host, newest at the bottom."""

from collections.abc import Iterable

from rich.markup import escape
from textual import on
from textual.binding import Binding
from textual.message import Message

from forktui.model.world import ACTIVITY_LIMIT, World
from forktui.tui.widgets.lines_view import LinesView
from forktui.view.rows import text_of
from forktui.view.styled_lines import Ink, Line
from supervisor.models import Activity, Level

LEVEL_INKS: dict[Level, Ink] = {"info": "muted", "warning": "warning", "alarm": "broken"}


class ActivityLog(LinesView):
    """The activities of a world, of all instances or of one."""

    BINDINGS = [Binding("enter", "open", "Open in full")]  # noqa: RUF012

    class Opened(Message):
        """The events are to be shown in full."""

    def __init__(self, *, wraps: bool = False, id: str | None = None) -> None:  # noqa: A002
        nothing = "Nothing has happened since this dashboard was opened"
        super().__init__(limit=ACTIVITY_LIMIT, wraps=wraps, empty=nothing, id=id)
        self.only: str | None = None
        """The id of the instance whose events are shown; None for all."""
        self._world = World()

    @property
    def held(self) -> bool:
        """Whether the pane stays at what it shows."""
        return not self.following

    def on_mount(self) -> None:
        super().on_mount()
        self._say()

    def show(self, world: World) -> None:
        """Draw the world's activities."""
        new = world.activity_count - self._world.activity_count
        self._world = world
        if new > 0:
            come = world.activities[-new:]
            self.add(self._lines(come), new - len(come))

    def show_only(self, instance_id: str | None) -> None:
        """Show what happened to one instance, or to all."""
        self.only = instance_id
        self.replace(self._lines(self._world.activities), self._world.activity_count - len(self._world.activities))

    def action_open(self) -> None:
        self.post_message(self.Opened())

    @on(LinesView.Told)
    def _say(self) -> None:
        told = "" if self.following and not self.searching else f": {text_of(self.told())}"
        self.border_title = escape(f"events{told}")

    def _lines(self, activities: Iterable[Activity]) -> list[Line]:
        return [self._line(activity) for activity in activities if self.only in (None, activity.instance_id)]

    def _line(self, activity: Activity) -> Line:
        ink = LEVEL_INKS[activity.level]
        time = activity.at.astimezone().strftime("%H:%M:%S")
        return [
            (f"{time} ", "muted"),
            (f"{self.glyphs.levels[activity.level]} ", ink),
            (activity.message, "plain" if activity.level == "info" else ink),
        ]
