"""The lines above the tree that say what is to be looked at, for as long as nobody has."""

from textual import events
from textual.message import Message

from forktui.actions.on_screen import ALARMS
from forktui.model.world import World
from forktui.tui.widgets.inked import Painting
from forktui.view.alarms import strip
from forktui.view.styled_lines import Line

LINES = 3
SMALL_LINES = 1
SMALL = 30
"""Below so many lines of the screen one has to do."""


class AlarmStrip(Painting):
    """A line for each kind of alarm that nobody has acknowledged, as many as there is room for."""

    class Opened(Message):
        """The alarms are to be shown in full."""

    def __init__(self) -> None:
        super().__init__(id="alarms")
        self._world = World()
        self._count = 0
        """How many lines it has."""
        self.display = False

    def show(self, world: World) -> None:
        """Draw what there is to look at."""
        before, self._world = self._world, world
        if world.alarms is not before.alarms:
            self.lay_out()

    def lay_out(self) -> None:
        """Take the lines that a screen of this size has for it."""
        most = SMALL_LINES if self.app.size.height < SMALL else LINES
        lines = min(len(self._world.alarms.groups(1)), most)
        if lines != self._count:
            self._count = lines
            self.display = lines > 0
            self.styles.height = max(lines, 1)
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        return strip(self._world, width, height, self.glyphs, ALARMS.key)

    def on_click(self, event: events.Click) -> None:
        event.stop()
        self.post_message(self.Opened())
