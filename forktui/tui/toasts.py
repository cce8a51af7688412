"""What is said in a corner for some seconds: not twice, not much at once, and no longer than its cause lasts."""

from collections.abc import Callable
from typing import Final

from textual.app import App
from textual.notifications import Notification, Notify, SeverityLevel

REPEAT_SECONDS: Final = 2.0
"""The same line is not said twice within this time."""
SECONDS: Final = 4.0
FAILURE_SECONDS: Final = 8.0
MOST: Final = 3
"""At once: the oldest goes before its time. What happened on the host is in the event pane too."""

Holds = Callable[[], bool]
"""Whether the cause of what was said is there."""


def always() -> bool:
    """A cause that does not go: what was done has been done."""
    return True


class Toasts:
    """The toasts of an application; `clock` is monotonic."""

    def __init__(self, app: App[None], clock: Callable[[], float]) -> None:
        self._app = app
        self._clock = clock
        self._said: dict[str, float] = {}
        self._shown: list[tuple[Notification, Holds]] = []

    def say(self, line: str, severity: SeverityLevel, holds: Holds = always) -> None:
        """Say one line of text, never markup, while its cause holds."""
        now = self._clock()
        self._said = {said: at for said, at in self._said.items() if now < at + REPEAT_SECONDS}
        if line in self._said:
            return
        self._said[line] = now
        timeout = SECONDS if severity == "information" else FAILURE_SECONDS
        toast = Notification(line, severity=severity, markup=False, timeout=timeout)
        # What App.notify() does by a message, after which nobody has the toast to take it away again.
        self._app._on_notify(Notify(toast))
        self._shown.append((toast, holds))
        self.review()

    def review(self) -> None:
        """Take away those whose cause has gone, and those that are too many."""
        there = [(one, holds) for one, holds in self._shown if one in self._app._notifications]
        self._shown = [(one, holds) for one, holds in there if holds()][-MOST:]
        kept = {one.identity for one, _ in self._shown}
        for one, _ in there:
            if one.identity not in kept:
                # Its line may be said again at once: what it was about has changed.
                self._said.pop(one.message, None)
                self._app._unnotify(one)
