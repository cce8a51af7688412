"""Server-sent events: the host's events, and the lines of a log."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Final

from aiohttp import web

from supervisor.api.closing import Closing
from supervisor.api.log_file import LogFile, follow
from supervisor.api.peer import LOGGER, peer_of
from supervisor.api.requests import LogsQuery
from supervisor.errors import InsufficientResourcesError, SupervisorError
from supervisor.host.event_bus import EventBus, Subscription
from supervisor.models import Event, Reset

HEARTBEAT_SECONDS: Final = 2.0
"""Between two signs of life of a stream without events: by them a dashboard knows that its data is not old."""
RETRY_MILLISECONDS: Final = 1000
CLOSE_GRACE: Final = 1.0
"""Seconds in which the streams of a stopping server may end well; a client that does not read is cut off then."""
FOLLOWER_LIMIT: Final = 32
"""Each has an inotify instance, and a user has 128 of those (fs.inotify.max_user_instances)."""


class Streams:
    """The open streams of one server."""

    def __init__(self, bus: EventBus, closing: Closing) -> None:
        self._bus = bus
        self._closing = closing
        self._followers = 0

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Stream the host's events, from Last-Event-ID on where that is possible."""
        writable = peer_of(request).writable
        async with self._bus.subscribe(request.headers.get("Last-Event-ID")) as subscription:
            return await self._stream(request, _event_frames(subscription, writable))

    async def log(self, request: web.Request, log: LogFile, query: LogsQuery) -> web.StreamResponse:
        """Stream a log's last lines, and then what is added to it where that is asked."""
        with contextlib.closing(log):
            return await self._log(request, log, query)

    async def _log(self, request: web.Request, log: LogFile, query: LogsQuery) -> web.StreamResponse:
        # Before anything is answered: that there is no log can be told by an answer only.
        lines = await asyncio.to_thread(log.tail, query.tail)
        if not query.follow:
            return await self._stream(request, _log_frames(log, lines, query.tail))
        if self._followers >= FOLLOWER_LIMIT:
            raise InsufficientResourcesError(
                f"{FOLLOWER_LIMIT} logs are followed already, the most there may be; end one"
            )
        self._followers += 1
        try:
            return await self._stream(request, self._followed_frames(request, log, lines))
        finally:
            self._followers -= 1

    async def _followed_frames(
        self, request: web.Request, log: LogFile, lines: list[str]
    ) -> AsyncGenerator[bytes, None]:
        """Yield until the log's directory goes, the client goes, or the server stops."""
        yield _data_frames(lines)
        async with aclosing(follow(log)) as batches:
            async for lines in batches:
                if self._closing.closed or request.transport is None:
                    return
                yield _data_frames(lines)

    async def _stream(self, request: web.Request, frames: AsyncGenerator[bytes, None]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Cache-Control": "no-store"})
        response.content_type = "text/event-stream"
        try:
            async with self._closing.bound(None, CLOSE_GRACE), aclosing(frames):
                await response.prepare(request)
                async for frame in frames:
                    if frame:
                        await response.write(frame)
                await response.write_eof()
        except TimeoutError:
            _cut_off(request)
        except ConnectionError as error:
            LOGGER.debug("a reader of %s went: %s", request.rel_url.raw_path, error)
        except SupervisorError as error:
            LOGGER.warning("the stream of %s failed: %s", request.rel_url.raw_path, error.message)
            _cut_off(request)
        except Exception:
            LOGGER.exception("the stream of %s failed", request.rel_url.raw_path)
            _cut_off(request)
        return response


def _cut_off(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _event_frames(subscription: Subscription, writable: bool) -> AsyncGenerator[bytes, None]:
    yield b"retry: %d\n\n" % RETRY_MILLISECONDS
    while True:
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                event_id, event = await anext(subscription)
        except TimeoutError:
            yield b": still here\n\n"
        except StopAsyncIteration:
            return
        else:
            yield _event_frame(event_id, _as_seen_by(event, writable))


def _as_seen_by(event: Event, writable: bool) -> Event:
    """Return the event with `writable` as it is for this peer."""
    if not isinstance(event, Reset):
        return event
    supervisor = event.snapshot.supervisor.model_copy(update={"writable": writable})
    return Reset(snapshot=event.snapshot.model_copy(update={"supervisor": supervisor}))


def _event_frame(event_id: str, event: Event) -> bytes:
    return f"id: {event_id}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()


async def _log_frames(log: LogFile, lines: list[str], tail: int) -> AsyncGenerator[bytes, None]:
    unfinished = log.unfinished()
    if unfinished and tail:
        lines = [*lines, unfinished][-tail:]
    yield _data_frames(lines)


def _data_frames(lines: Sequence[str]) -> bytes:
    """Write nothing but data, since hypeman's SDK reads each as one JSON string."""
    return "".join(f"data: {json.dumps(line)}\n\n" for line in lines).encode()
