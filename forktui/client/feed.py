"""The event stream as the dashboard needs it: followed for ever, with a connection state beside the events."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Final

from pydantic import ValidationError

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.text.quantities import age
from forktui.text.safe import safe_text
from supervisor.models import Activity, Event, Level, Reset

FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 8.0
GATHER_SECONDS: Final = 0.03
"""For which events wait for others where many come."""
QUIET_SECONDS: Final = 10.0
"""Without an event from a supervisor that shows life: it tells of its counters twice a second and more."""


class Link(StrEnum):
    """Whether events arrive."""

    CONNECTING = "connecting"
    LIVE = "live"
    SILENT = "no answer"
    LOST = "lost"


@dataclass(frozen=True)
class Connection:
    """The state of the link; times are of the monotonic clock, in seconds."""

    link: Link = Link.CONNECTING
    heard_at: float = 0.0
    """When the supervisor showed life last, or when the feed began: as old is the data."""
    retry_at: float = 0.0
    attempts: int = 0
    reason: str = ""
    event_at: float | None = None
    """When the last event came; None before the first."""

    @property
    def live(self) -> bool:
        """Whether what is shown is true now."""
        return self.link is Link.LIVE

    @property
    def quiet(self) -> bool:
        """Whether the supervisor shows life and tells nothing: what is shown may be as old as the last event."""
        return self.live and self.event_at is not None and self.heard_at >= self.event_at + QUIET_SECONDS

    @property
    def stale(self) -> bool:
        """Whether there is something to show, and it may be old."""
        return self.event_at is not None and (not self.live or self.quiet)

    def age(self, now: float) -> str:
        """How old the data is: as the last event, from which on nothing is known."""
        return age(max(now - (self.heard_at if self.event_at is None else self.event_at), 0))


def retry_seconds(attempts: int) -> float:
    """How long to wait after this many failed attempts, the first of them 1: doubled each time, up to a bound."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts - 1, 16), LAST_RETRY_SECONDS)


class Feed:
    """Follows the events of a supervisor, resuming after the last one whenever the stream ends.

    `tell` is given what becomes of the connection, as activities of the host are told.
    """

    def __init__(
        self,
        client: SupervisorClient,
        heard: Callable[[Event], object],
        changed: Callable[[Connection], object],
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[Activity], object] = lambda activity: None,
    ) -> None:
        self.connection = Connection(heard_at=clock())
        self._client = client
        self._heard = heard
        self._changed = changed
        self._clock = clock
        self._tell = tell
        self._last_event_id: str | None = None
        self._event_at: float | None = None
        self._pid: int | None = None
        """Of the supervisor that has told what is known."""
        self._retry = asyncio.Event()

    def retry_now(self) -> None:
        """End the wait for the next attempt."""
        self._retry.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            try:
                await self._follow()
            except (ApiError, SupervisorUnreachableError) as error:
                self._lose(str(error))
            except ValidationError:
                self._last_event_id = None
                self._lose("the supervisor sent an event that is not understood: is it of another version?")
            await self._wait()

    async def _follow(self) -> None:
        following = self._client.events(
            self._last_event_id, alive=self._alive, silent=self._silent, gather=GATHER_SECONDS
        )
        async with aclosing(following) as events:
            async for event_id, event in events:
                lost, before = self.connection, self._pid
                self._event_at = self._clock()
                if isinstance(event, Reset):
                    self._pid = event.snapshot.supervisor.pid
                if not lost.live or lost.quiet:
                    self._change(Connection(Link.LIVE, self._event_at, event_at=self._event_at))
                self._heard(event)
                self._last_event_id = event_id
                if lost.attempts:
                    self._say("info", self._back(lost, event, before))

    def _back(self, lost: Connection, event: Event, before: int | None) -> str:
        """What it means that events come again, by the first of them."""
        waited = lost.age(self._clock())
        if lost.event_at is None:
            return f"connected to the supervisor (pid {self._pid}), which was waited for {waited}"
        if not isinstance(event, Reset):
            return f"connected again after {waited}: nothing is missing"
        whom = "" if self._pid == before else f", to another supervisor (pid {self._pid})"
        return f"connected again after {waited}{whom}: what happened meanwhile is not listed"

    def _alive(self) -> None:
        now, event_at = self._clock(), self._event_at
        alive = Connection(Link.LIVE, now, event_at=event_at)
        match self.connection.link:
            case Link.LIVE if alive.quiet is self.connection.quiet:
                self.connection = alive
            case Link.LIVE:
                self._change(alive)
            case Link.SILENT:
                waited = age(now - self.connection.heard_at)
                self._change(alive)
                self._say("info", f"the supervisor answers again, after {waited}: nothing is missing")

    def _silent(self, reason: str) -> None:
        if self.connection.live:
            self._change(replace(self.connection, link=Link.SILENT, reason=safe_text(reason), event_at=self._event_at))
            self._say("warning", reason)

    def _lose(self, reason: str) -> None:
        now, lost = self._clock(), self.connection
        if lost.link in (Link.LIVE, Link.SILENT):
            self._say("warning", f"not connected any more: {reason}")
        attempts = lost.attempts + 1
        retry_at = now + retry_seconds(attempts)
        self._change(Connection(Link.LOST, lost.heard_at, retry_at, attempts, safe_text(reason), self._event_at))

    async def _wait(self) -> None:
        self._retry.clear()
        try:
            async with asyncio.timeout(self.connection.retry_at - self._clock()):
                await self._retry.wait()
        except TimeoutError:
            return
        self._change(replace(self.connection, retry_at=self._clock()))

    def _change(self, connection: Connection) -> None:
        self.connection = connection
        self._changed(connection)

    def _say(self, level: Level, message: str) -> None:
        self._tell(Activity(at=datetime.now(UTC), level=level, message=message))
