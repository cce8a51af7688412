"""Operations in progress: who asked, how far they are, how one is cancelled; and where a test may end the supervisor.

A step is named just before it is taken, by whoever takes it. The operation that it belongs to is known from the context
(contextvars), which tasks and `asyncio.to_thread` inherit.

An operation is cancelled where it says so, and nowhere else: at a wait that is `interruptible`, and where it looks
(`check`). What is between those, such as a record being written, is done or not at all; what undoes has none of them.
"""

import asyncio
import contextlib
import logging
import os
import secrets
import signal
from collections import Counter
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from supervisor.concurrency.interruption import Interruption
from supervisor.errors import OperationCancelledError

FAILPOINT: Final = os.environ.get("FORKTUI_FAILPOINT")
"""A file that says where this process kills itself, for tests: `standby:3` is the third step of standby from when it is
written there."""

asked_by: ContextVar[str] = ContextVar("asked_by", default="supervisor")
"""Who asked for what is done in this context."""

_log = logging.getLogger(__name__)


@dataclass(eq=False)
class Operation:
    """What is being done to an instance, or for it."""

    verb: str
    instance_id: str
    name: str
    """The instance's, for messages."""
    part_of: "Operation | None" = None
    id: str = field(default_factory=lambda: f"op-{secrets.token_hex(5)}")
    asked_by: str = field(default_factory=asked_by.get)
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    step: str = "begin"
    done: int = 0
    total: int | None = None
    """How much there is to do, of which `done` is done; None where nothing is counted."""
    unit: str | None = None
    cancelled: str | None = None
    """Why it is to end, once somebody has asked for that."""
    deletes_made: bool = False
    """Whether what it has made goes when it is cancelled, where each of that would stay by itself."""
    cut_short: bool = False
    """Whether it has left something out because it was cancelled, and ends without an error all the same."""
    outcome: str | None = None
    """None until it has ended: then whether it was done, cancelled, or failed."""
    _interruptions: set[Interruption] = field(default_factory=set)
    _parts: "set[Operation]" = field(default_factory=set)
    _end: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def ended(self) -> bool:
        """Whether it is in progress no more."""
        return self.outcome is not None

    def cancel(self, why: str) -> None:
        """Have it end where it can be ended, with all of its parts."""
        if self.ended:
            return
        self.cancelled = self.cancelled or why
        for interruption in tuple(self._interruptions):
            interruption.fire()
        for part in tuple(self._parts):
            part.cancel(why)

    def check(self) -> None:
        """Raise OperationCancelledError where it is to end, or has failed and left a thread; any thread may."""
        if self.cancelled is not None or self.outcome == "failed":
            raise self.cancellation()

    def cancellation(self) -> OperationCancelledError:
        """Return what is raised of it where it is ended."""
        return OperationCancelledError(f"{self.name}: {self.verb} was cancelled: {self.cancelled or self.outcome}")

    async def wait(self) -> None:
        """Return when it has ended."""
        await self._end.wait()

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Have it end with the body, as that does."""
        if self.part_of is not None:
            self.part_of._parts.add(self)
        try:
            yield
        except OperationCancelledError:
            self.outcome = "cancelled"
            raise
        except BaseException:
            self.outcome = "failed"
            raise
        else:
            self.outcome = "cancelled" if self.cut_short else "done"
        finally:
            if self.part_of is not None:
                self.part_of._parts.discard(self)
            self._end.set()

    @contextlib.contextmanager
    def interruption(self) -> Iterator[None]:
        """Let it be cancelled in the waits of the body; raises OperationCancelledError."""
        self.check()
        interruption = Interruption(self.cancellation)
        self._interruptions.add(interruption)
        try:
            with interruption:
                yield
        finally:
            self._interruptions.discard(interruption)


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
def operation(verb: str, instance_id: str, name: str) -> Iterator[Operation]:
    """Make an operation, a part of the present one if there is any, that steps belong to while the context lasts."""
    present = _in_progress()
    made = Operation(verb, instance_id, name, present, cancelled=present.cancelled if present else None)
    token = _current.set(made)
    try:
        with made.running():
            yield made
            step("end")
    finally:
        _current.reset(token)


def step(name: str) -> None:
    """Say that the operation in progress, if there is one, takes this step now; any thread may."""
    at = _in_progress()
    if at is None:
        return
    at.step = name
    _log.debug("%s: %s", at.verb, name)
    if _failpoint is not None and _failpoint.reached(at.verb):
        os.kill(os.getpid(), signal.SIGKILL)


def check() -> None:
    """Raise OperationCancelledError where the operation of this context is to end, or has failed; any thread may.

    It may have ended before: a thread that was given up ends here.
    """
    at = _current.get()
    if at is not None:
        at.check()


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let the operation in progress be cancelled in the waits of the body; raises OperationCancelledError.

    For waits on what may never come: a VMM's answer, a page server's, a turn. Not for threads, which go on.
    """
    at = _in_progress()
    with contextlib.nullcontext() if at is None else at.interruption():
        yield


@contextlib.contextmanager
def uncancelled() -> Iterator[None]:
    """Have what the body does be no part of the operation in progress: it belongs to how that one ends."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


@contextlib.contextmanager
def counted(total: int, unit: str) -> Iterator[None]:
    """Have the operation in progress show how much of `total` is done, while the body lasts; any thread may."""
    at = _in_progress()
    if at is None:
        yield
        return
    before = at.done, at.total, at.unit
    at.done, at.total, at.unit = 0, total, unit
    try:
        yield
    finally:
        at.done, at.total, at.unit = before


def advance(amount: int) -> None:
    """Count so much more as done; raises as `check`. Any thread may."""
    at = _current.get()
    if at is not None:
        at.done += amount
        at.check()


def done() -> int:
    """Return how much is counted as done."""
    at = _in_progress()
    return 0 if at is None else at.done


def reached(amount: int) -> None:
    """Count so much as done altogether."""
    at = _in_progress()
    if at is not None:
        at.done = amount


def _in_progress() -> Operation | None:
    """Return the operation of this context; a task that one has started keeps its context when that has ended."""
    at = _current.get()
    return None if at is None or at.ended else at
