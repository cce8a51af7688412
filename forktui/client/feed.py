"""The event stream as the dashboard needs it: followed for ever, with a connection state beside the events."""

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import StrEnum

from pydantic import ValidationError

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.text.safe import safe_text
from supervisor.models import Event

FIRST_RETRY_SECONDS = 0.25
LAST_RETRY_SECONDS = 8.0


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

    @property
    def live(self) -> bool:
        """Whether what is shown is true now."""
        return self.link is Link.LIVE


def retry_seconds(attempts: int) -> float:
    """How long to wait after this many failed attempts, the first of them 1: doubled each time, up to a bound."""
    return min(FIRST_RETRY_SECONDS * 2.0 ** min(attempts - 1, 16), LAST_RETRY_SECONDS)


class Feed:
    """Follows the events of a supervisor, resuming after the last one whenever the stream ends."""

    def __init__(
        self,
        client: SupervisorClient,
        heard: Callable[[Event], object],
        changed: Callable[[Connection], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.connection = Connection(heard_at=clock())
        self._client = client
        self._heard = heard
        self._changed = changed
        self._clock = clock
        self._last_event_id: str | None = None
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
        following = self._client.events(self._last_event_id, alive=self._alive, silent=self._silent)
        async with aclosing(following) as events:
            async for event_id, event in events:
                if not self.connection.live:
                    self._change(Connection(Link.LIVE, self._clock()))
                self._heard(event)
                self._last_event_id = event_id

    def _alive(self) -> None:
        match self.connection.link:
            case Link.LIVE:
                self.connection = Connection(Link.LIVE, self._clock())
            case Link.SILENT:
                self._change(Connection(Link.LIVE, self._clock()))

    def _silent(self, reason: str) -> None:
        if self.connection.live:
            self._change(replace(self.connection, link=Link.SILENT, reason=safe_text(reason)))

    def _lose(self, reason: str) -> None:
        now = self._clock()
        attempts = self.connection.attempts + 1
        heard_at = self.connection.heard_at
        self._change(Connection(Link.LOST, heard_at, now + retry_seconds(attempts), attempts, safe_text(reason)))

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
