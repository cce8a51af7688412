"""The lines that say that what is shown is old, or that there is nothing to show yet."""

import shlex
import textwrap
from typing import Final

from forktui.client.feed import Connection, Link
from forktui.client.transport import DATA_DIR
from forktui.text.quantities import age
from forktui.text.safe import ELLIPSIS
from forktui.tui.widgets.inked import Painting
from forktui.view.styled_lines import Line

MOST_LINES: Final = 4
"""Of a reason: a path may be as long as a host likes."""
_SHARE: Final = 6
"""Lines of a terminal to one of a reason: a small one is for the tree."""


class Banner(Painting):
    """Shown while the supervisor cannot be reached, does not answer, or tells nothing."""

    def __init__(self) -> None:
        super().__init__(id="banner")
        self._connection = Connection()
        self._now = 0.0
        self._data_dir = ""
        self.display = False

    def show(self, connection: Connection, now: float, data_dir: str = "") -> None:
        """Draw the state of the link at `now`, in seconds of its clock; `data_dir` is the supervisor's, once known."""
        self._connection, self._now, self._data_dir = connection, now, data_dir
        lost = connection.link is Link.SILENT or connection.attempts > 0 or connection.quiet
        if self.display != lost:
            self.display = lost
        if lost:
            self.lay_out()

    def lay_out(self) -> None:
        """Take the lines that what it says has need of."""
        width, height = self.app.size
        # Before it is shown it has no width of its own.
        lines = 1 + len(self._reasons(self.content_size.width or width, height // _SHARE))
        if self.styles.height is None or self.styles.height.value != lines:
            self.styles.height = lines
        self.repaint()

    def on_resize(self) -> None:
        self.lay_out()

    def paint(self, width: int, height: int) -> list[Line]:
        reasons: list[Line] = [[(f" {row}", "broken")] for row in self._reasons(width, height - 1)]
        return [[(f" {self._notice()[0]} ", "alarm")], *reasons]

    def _reasons(self, width: int, height: int) -> list[str]:
        """Why that is so, in full where there is room: it ends in a command to type."""
        why = self._notice()[1]
        if self._data_dir:
            why = why.replace(DATA_DIR, shlex.quote(self._data_dir))
        most = min(max(height, 1), MOST_LINES)
        wrapped = textwrap.wrap(
            why, max(width - 2, 20), break_on_hyphens=False, max_lines=most, placeholder=f" {ELLIPSIS}"
        )
        return wrapped or [""]

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
