"""How long a thing that dies again and again is left alone before its next start."""

import time
from collections import deque

DEATHS_REMEMBERED = 30.0
"""Seconds over which deaths are counted."""
DEATHS_AT_ONCE = 3
"""How many deaths in that time are answered without a delay; a crash loop is more."""
FIRST_DELAY, LONGEST_DELAY = 0.1, 5.0
"""Seconds."""


class RestartBackoff:
    """The deaths of one thing."""

    def __init__(self) -> None:
        self._deaths: deque[float] = deque()

    def died(self) -> None:
        """Count a death, or a start that failed, as of now."""
        self._deaths.append(time.monotonic())

    def delay(self) -> float:
        """Return how long to wait before the next start, in seconds: longer with each death of a crash loop."""
        while self._deaths and self._deaths[0] < time.monotonic() - DEATHS_REMEMBERED:
            self._deaths.popleft()
        excess = len(self._deaths) - DEATHS_AT_ONCE
        return min(FIRST_DELAY * 2**excess, LONGEST_DELAY) if excess > 0 else 0.0
