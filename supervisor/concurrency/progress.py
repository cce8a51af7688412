"""Operations in progress: who asked, which step they are at, since when; and where a test may end the supervisor.

A step is named just before it is taken, by whoever takes it. The operation that it belongs to is known from the context
(contextvars), which tasks and `asyncio.to_thread` inherit.
"""

import contextlib
import logging
import os
import signal
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

FAILPOINT: Final = os.environ.get("FORKTUI_FAILPOINT")
"""A file that says where this process kills itself, for tests: `standby:3` is the third step of standby from when it is
written there."""

asked_by: ContextVar[str] = ContextVar("asked_by", default="supervisor")
"""Who asked for what is done in this context."""

_log = logging.getLogger(__name__)


@dataclass
class Operation:
    """What is being done to an instance."""

    verb: str
    asked_by: str = field(default_factory=asked_by.get)
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    step: str = "begin"
    ended: bool = False


_current: ContextVar[Operation | None] = ContextVar("operation", default=None)


class _Failpoint:
    """Counts steps from when the file was last written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._armed = ""
        self._taken: Counter[str] = Counter()

    def reached(self, verb: str) -> bool:
        armed = self._path.read_text()
        if armed != self._armed:
            self._armed = armed
            self._taken.clear()
        self._taken[verb] += 1
        return f"{verb}:{self._taken[verb]}" == armed


_failpoint = _Failpoint(Path(FAILPOINT)) if FAILPOINT else None


@contextlib.contextmanager
def operation(verb: str) -> Iterator[Operation]:
    """Make an operation the one that steps belong to while the context lasts."""
    made = Operation(verb)
    token = _current.set(made)
    try:
        yield made
        step("end")
    finally:
        made.ended = True
        _current.reset(token)


def step(name: str) -> None:
    """Say that the operation in progress, if there is one, takes this step now; any thread may."""
    at = _current.get()
    # A task that an operation has started keeps its context when the operation has ended.
    if at is None or at.ended:
        return
    at.step = name
    _log.debug("%s: %s", at.verb, name)
    if _failpoint is not None and _failpoint.reached(at.verb):
        os.kill(os.getpid(), signal.SIGKILL)
