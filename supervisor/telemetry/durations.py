"""How long operations took, by verb and outcome, in buckets. Pure."""

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Final

BOUNDS_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Upper bounds, inclusive, from a restore to a fan-out of thousands."""


@dataclass
class Durations:
    """Operations of one verb that ended in one way."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_SECONDS) + 1))
    """By BOUNDS_SECONDS, and the longer ones."""
    seconds: float = 0.0
    """Of all together."""

    def add(self, seconds: float) -> None:
        """Count one more."""
        self.counts[bisect_left(BOUNDS_SECONDS, seconds)] += 1
        self.seconds += seconds
