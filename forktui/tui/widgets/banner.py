"""The lines that say that what is shown is old, or that there is nothing to show yet."""

from forktui.client.feed import Connection, Link
from forktui.text.quantities import age
from forktui.tui.widgets.inked import Painting
from forktui.view.styled_lines import Line


class Banner(Painting):
    """Shown while the supervisor cannot be reached, does not answer, or tells nothing."""

    def __init__(self) -> None:
        super().__init__(id="banner")
        self._connection = Connection()
        self._now = 0.0
        self.display = False

    def show(self, connection: Connection, now: float) -> None:
        """Draw the state of the link at `now`, in seconds of its clock."""
        self._connection, self._now = connection, now
        lost = connection.link is Link.SILENT or connection.attempts > 0 or connection.quiet
        if self.display != lost:
            self.display = lost
        if lost:
            self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        notice, why = self._notice()
        return [[(f" {notice} ", "alarm")], [(f" {why}", "broken")]]

    def _notice(self) -> tuple[str, str]:
        """What is wrong with the data, and why."""
        connection, old = self._connection, self._connection.age(self._now)
        if connection.quiet:
            return f"No news for {old}: what is shown may be old", "the supervisor answers, and tells of nothing"
        if connection.link is Link.SILENT:
            return f"No answer for {old}: what is shown may be old, actions are off", connection.reason
        wait = age(max(connection.retry_at - self._now + 0.999, 0))
        again = f"Next try in {wait} (^r now)"
        if connection.event_at is None:
            return f"Waiting for the supervisor, for {old} so far. {again}", connection.reason
        return f"Not connected: data is {old} old, actions are off. {again}", connection.reason
