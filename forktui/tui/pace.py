"""When the dashboard is drawn next: at once after a pause, else four to ten times a second, by what it costs. Pure."""

from typing import Final

LEAST_SECONDS: Final = 0.1
MOST_SECONDS: Final = 0.25
"""Between two draws, where one is wanted."""
SHARE: Final = 0.03
"""Of the time that draws may take, as long as that leaves four a second: the rest is for keys, and for others."""
CHANGE_SECONDS: Final = 0.05
"""For which a change waits for others, so that a burst is drawn once; what a key did must show at once."""
STATISTICS_SECONDS: Final = 0.25
"""The same for counters."""


class Pace:
    """Times are of one monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._next = float("-inf")
        self.due = float("inf")
        """When to draw; infinite while nothing is to be drawn."""

    def want(self, now: float, within: float) -> bool:
        """Have a draw within these seconds, or as soon as one may be; returns whether `due` is another."""
        due = max(now + within, self._next)
        sooner = due < self.due
        self.due = min(due, self.due)
        return sooner

    def drawn(self, began: float, ended: float) -> None:
        """Note a draw, which put off the next one for longer the longer it took."""
        self._next = ended + min(max((ended - began) / SHARE, LEAST_SECONDS), MOST_SECONDS)
        self.due = float("inf")
