"""The line that says that what is shown is old."""

from forktui.client.feed import Connection, Link
from forktui.text.quantities import age
from forktui.tui.widgets.inked import Painting
from forktui.view.styled_lines import Line


class Banner(Painting):
    """Shown while the supervisor cannot be reached, or does not answer; actions are off meanwhile."""

    def __init__(self) -> None:
        super().__init__(id="banner")
        self._connection = Connection()
        self._now = 0.0
        self.display = False

    def show(self, connection: Connection, now: float) -> None:
        """Draw the state of the link at `now`, in seconds of its clock."""
        self._connection, self._now = connection, now
        lost = connection.link is Link.SILENT or connection.attempts > 0
        if self.display != lost:
            self.display = lost
        if lost:
            self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        connection = self._connection
        old = age(max(self._now - connection.heard_at, 0))
        if connection.link is Link.SILENT:
            notice = f" No answer for {old}: what is shown may be old, actions are off "
            return [[(notice, "alarm")], [(f" {connection.reason}", "broken")]]
        wait = age(max(connection.retry_at - self._now + 0.999, 0))
        notice = f" Not connected: data is {old} old, actions are off. Next try in {wait} (^r now) "
        return [[(notice, "alarm")], [(f" {connection.reason}", "broken")]]
