"""A log that is told the same over and over says it once, and how often: what anybody can cause would fill a disk."""

import logging
import threading
import time
from typing import Final

WINDOW_SECONDS: Final = 10.0
"""From a line's first time; those like it are counted for so long."""
KINDS: Final = 256
"""Lines that are counted at a time; any further one is written."""

VARIANTS: Final = 8
"""Lines of one `counted_as` that are written before they are counted."""

_Kind = tuple[str, int, str]


class _Counted:
    """A line that was written, and how often it came again."""

    def __init__(self, record: logging.LogRecord, until: float) -> None:
        self.record = record
        self.until = until
        self.left = VARIANTS - 1 if hasattr(record, "counted_as") else 0
        self.more = 0

    def again(self) -> bool:
        """Return whether one more is to be written; else it is counted."""
        if self.left:
            self.left -= 1
            return True
        self.more += 1
        return False


class RepeatedLines(logging.Filter):
    """Lets a handler write a line once in a while, and then how often it came meanwhile.

    Lines are the same that say the same, or whose `counted_as` is: `extra={"counted_as": ...}` is for those that quote
    what a peer can vary.
    """

    def __init__(self, handler: logging.Handler, seconds: float = WINDOW_SECONDS) -> None:
        super().__init__()
        self._handler = handler
        self._seconds = seconds
        self._counted: dict[_Kind, _Counted] = {}
        self._timer: threading.Timer | None = None
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the line is to be written: each is that somebody wants for debugging."""
        if record.levelno <= logging.DEBUG:
            return True
        kind = (record.name, record.levelno, getattr(record, "counted_as", None) or record.getMessage())
        with self._lock:
            self._forget()
            known = self._counted.get(kind)
            if known is not None:
                written = known.again()
                if not written:
                    self._tell_later()
                return written
            if len(self._counted) < KINDS:
                self._counted[kind] = _Counted(record, time.monotonic() + self._seconds)
        return True

    def tell(self, *, all_of_them: bool = False) -> None:
        """Write how often lines came again whose time is over, or of all of them."""
        with self._lock:
            now = time.monotonic()
            over = {kind: one for kind, one in self._counted.items() if all_of_them or one.until <= now}
            for kind in over:
                del self._counted[kind]
            self._timer = None
            if any(one.more for one in self._counted.values()):
                self._tell_later()
        for one in over.values():
            if one.more:
                self._write(one)

    def _forget(self) -> None:
        """Forget those whose time is over and of which there is nothing to tell."""
        now = time.monotonic()
        for kind, one in list(self._counted.items()):
            if one.until > now:
                return
            if not one.more:
                del self._counted[kind]

    def _tell_later(self) -> None:
        if self._timer is None:
            self._timer = threading.Timer(self._seconds, self.tell)
            self._timer.daemon = True
            self._timer.start()

    def _write(self, one: _Counted) -> None:
        first = one.record
        text = f"{first.getMessage()} ... {one.more} times more in {self._seconds:g} s"
        told = logging.LogRecord(first.name, first.levelno, first.pathname, first.lineno, text, (), None)
        self._handler.acquire()
        try:
            self._handler.emit(told)
        finally:
            self._handler.release()
