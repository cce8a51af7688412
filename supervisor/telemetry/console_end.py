"""What a guest's console ends with while its VM runs: Linux that has halted, or panicked for good, prints no more."""

from pathlib import Path
from typing import Final

from supervisor.consoles.last_lines import last_lines
from supervisor.models import LastWords
from supervisor.rules.endings import standing_words

SETTLED: Final = 3.0
"""Seconds that last words stand before they are told: a guest that reboots or panics is mostly gone by then."""
_LAST_BYTES: Final = 1024


class ConsoleEnd:
    """A console from `position` on: where the present boot or restore begins.

    A guest prints what it likes, so this is shown as what it says, and changes no state.
    """

    def __init__(self, path: Path, position: int) -> None:
        self.last_words: LastWords | None = None
        self._path = path
        self._position = position
        self._size = -1
        self._since = 0.0
        self._told = False

    def look(self, now: float) -> None:
        """Look at it again, `now` (monotonic seconds) and where it has grown; blocks on the disk."""
        try:
            size = self._path.stat().st_size
        except OSError:
            return
        if size == self._size:
            return
        self._size = size
        found = standing_words(last_lines(self._path, self._position, _LAST_BYTES))
        if found != self.last_words:
            self.last_words, self._since, self._told = found, now, False

    def to_tell(self, now: float) -> LastWords | None:
        """Return last words that have come to stand, once."""
        if self._told or self.last_words is None or now - self._since < SETTLED:
            return None
        self._told = True
        return self.last_words
