"""A log as a console needs it: followed through restarts of the supervisor, and no line told twice."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum

from forktui.client.api import ApiError, SupervisorUnreachableError
from forktui.client.feed import retry_seconds
from forktui.text.remedies import in_dashboard

Follow = Callable[[Callable[[], object]], AsyncGenerator[str, None]]
"""Begins with the last lines of a log, and goes on with each that is added; what it is given is called once it does."""

_GONE = 404


class LogLink(StrEnum):
    """Whether the lines of a log arrive."""

    CONNECTING = "connecting"
    LIVE = "connected"
    LOST = "lost"
    ENDED = "ended"


@dataclass(frozen=True)
class LogState:
    """The state of the link, and why it is that."""

    link: LogLink = LogLink.CONNECTING
    reason: str = ""


class FollowedLog:
    """The lines of one log, of which the last `tail` are told first; `changed` is called with each new state."""

    def __init__(self, follow: Follow, tail: int, changed: Callable[[LogState], object]) -> None:
        self._follow = follow
        self.state = LogState()
        self._changed = changed
        self._seen: deque[str] = deque(maxlen=tail)
        self._attempts = 0

    async def lines(self) -> AsyncGenerator[str, None]:
        """Yield each line; ends where the log's instance is gone."""
        while True:
            reason = "the supervisor ended it"
            try:
                async with aclosing(self._once()) as lines:
                    async for line in lines:
                        yield line
            except SupervisorUnreachableError as error:
                reason = in_dashboard(error)
            except ApiError as error:
                reason = in_dashboard(error)
                if error.status == _GONE:
                    self._change(LogState(LogLink.ENDED, reason))
                    return
            self._attempts += 1
            self._change(LogState(LogLink.LOST, reason))
            await asyncio.sleep(retry_seconds(self._attempts))

    async def _once(self) -> AsyncGenerator[str, None]:
        overlap: Overlap | None = Overlap(self._seen)
        async with aclosing(self._follow(self._live)) as lines:
            async for line in lines:
                self._attempts = 0
                new: Sequence[str] = (line,)
                if overlap is not None:
                    new = overlap.take(line)
                    if overlap.missing:
                        self._change(LogState(LogLink.LIVE, "lines between are missing"))
                    overlap = None if overlap.known else overlap
                self._seen.extend(new)
                for one in new:
                    yield one

    def _live(self) -> None:
        if self.state.link is not LogLink.LIVE:
            self._change(LogState(LogLink.LIVE))

    def _change(self, state: LogState) -> None:
        self.state = state
        self._changed(state)


class Overlap:
    """Where lines that are read again from a tail go on after those that were read before."""

    def __init__(self, seen: Sequence[str]) -> None:
        self.known = False
        """Whether it was found, or cannot be: all that follows is new."""
        self.missing = False
        """Whether there is none: something was between."""
        self._seen = list(seen)
        self._begins = list(range(len(seen)))
        """Where in what was seen the tail may begin: the longest overlap first."""
        self._tail: list[str] = []
        self._repeated = 0
        """How many lines of the tail are the end of what was seen, as far as that is known."""

    def take(self, line: str) -> Sequence[str]:
        """Return what is new as far as that is known with this line of the tail."""
        at = len(self._tail)
        self._tail.append(line)
        begins = [begin for begin in self._begins if self._seen[begin + at] == line]
        self._begins = [begin for begin in begins if begin + at + 1 < len(self._seen)]
        if len(self._begins) < len(begins):
            self._repeated = at + 1
        if self._begins:
            return ()
        self.known = True
        self.missing = bool(self._seen) and not self._repeated
        return self._tail[self._repeated :]
