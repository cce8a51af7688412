"""One connection below HTTP: how long its peer is waited for, its half-close, and what is answered to no request."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from enum import Enum, auto
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestPayloadError

from supervisor.api.answers import as_bytes
from supervisor.errors import BadRequestError, SupervisorError
from supervisor.system.hang_ups import HangUps

IDLE_SECONDS: Final = 60.0
"""Without a request, at first and behind an answer."""
HEAD_SECONDS: Final = 10.0
"""From the first byte of a request to the end of its headers; a body has `BODY_SECONDS` in requests.py."""
READ_SECONDS: Final = 60.0
"""For a peer to read what no buffer takes any more: of an answer, or of a stream's next part."""
END_SECONDS: Final = 5.0
"""For a peer to read the rest, once its connection is to end."""

_QUOTED: Final = 200
"""Characters of a parser's message that go back."""


class RequestTimeoutError(SupervisorError):
    """A request did not come to an end."""

    code = "request_timeout"
    status = 408


class _Turn(Enum):
    """What is waited for."""

    REQUEST = auto()
    HEAD = auto()
    """The rest of it."""
    ANSWER = auto()
    """Ours, or a body: the request's own bounds hold."""
    READER = auto()
    """The peer, to read."""
    END = auto()
    """The same, and nothing follows."""


class Connection(web.RequestHandler):
    """aiohttp's connection, with an end to every wait for its peer.

    aiohttp waits for ever for a head and for a reader, and drops a peer that sends nothing more, with its answer.
    """

    __slots__ = ("_deadline", "_half_closed", "_hang_ups", "_on_lost", "_since", "_transport", "_turn", "uid")

    def __init__(
        self, server: web.Server, uid: int, hang_ups: HangUps, on_lost: Callable[["Connection"], None]
    ) -> None:
        """`uid` is the peer's; `on_lost` is called when the connection is no more."""
        loop = asyncio.get_running_loop()
        # A body that is encoded is refused, and not decoded before that.
        super().__init__(server, loop=loop, logger=_LOGGER, access_log=None, auto_decompress=False)  # type: ignore[arg-type]
        self.uid = uid
        self._hang_ups = hang_ups
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._turn = _Turn.ANSWER
        self._since = loop.time()
        self._deadline: asyncio.TimerHandle | None = None
        self._half_closed = False

    @property
    def waited_since(self) -> float | None:
        """The loop's time since which its peer is waited for; None where the peer waits for an answer."""
        if self._transport is None:
            return None
        request = self._current_request
        owed = request is not None and not _is_whole(request.content)
        return None if self._turn is _Turn.ANSWER and not owed else self._since

    def give_way(self, error: SupervisorError) -> None:
        """End at once; a peer that has begun a request is told why."""
        if self._turn in (_Turn.HEAD, _Turn.ANSWER):
            self._say(error)
        self._cut()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        super().connection_made(transport)
        self._begin(_Turn.REQUEST)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for nothing more."""
        if self._transport is not None:
            self._hang_ups.unwatch(self._transport.get_extra_info("socket"))
        self._transport = None
        self._begin(_Turn.END)
        super().connection_lost(exc)
        self._on_lost(self)

    def data_received(self, data: bytes) -> None:
        """Bound the time from the first byte of a request to its whole head."""
        if data and self._turn is _Turn.REQUEST:
            self._begin(_Turn.HEAD)
        super().data_received(data)
        if self._messages and self._turn is _Turn.HEAD:
            self._begin(_Turn.ANSWER)

    def eof_received(self) -> bool | None:  # type: ignore[override]  # of asyncio's, which lets a transport stay open
        """Answer what was asked for, whose peer sends nothing more, and close where nothing was."""
        if self._turn is _Turn.HEAD:
            self._say(BadRequestError("the request ended before its headers did; send it whole"))
        if self._transport is None or (self._turn not in (_Turn.ANSWER, _Turn.READER) and not self._messages):
            return None
        self._half_closed = True
        # No rest of a body is waited for behind the answer.
        self._lingering_time = 0.0
        if self._current_request is not None:
            _end(self._current_request.content)
        for _, body in self._messages:
            _end(body)
        try:
            self._hang_ups.watch(self._transport.get_extra_info("socket"), self._cut)
        except OSError:
            return None
        return True

    def pause_writing(self) -> None:
        """Wait for the peer to read."""
        super().pause_writing()
        if self._turn is _Turn.ANSWER:
            self._begin(_Turn.READER)

    def resume_writing(self) -> None:
        """Go on."""
        super().resume_writing()
        if self._turn is _Turn.READER:
            self._begin(_Turn.ANSWER)

    async def start(self) -> None:
        """Answer requests until the connection is to end, and bound how long that takes."""
        try:
            await super().start()
        finally:
            self._begin(_Turn.END)

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        self._begin(_Turn.ANSWER)
        if self._half_closed:
            _end(request.content)
        try:
            return await super()._handle_request(request, start_time, request_handler)
        finally:
            if self._half_closed and not self._messages:
                self.close()
            self._begin(_Turn.REQUEST)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Return the answer to bytes that are no request, in one line.

        aiohttp's quotes all that was read so far. That is more than a socket holds, so it would wait for a peer to read
        it who is himself still sending, and whom nobody reads any more.
        """
        line = message.splitlines()[0][:_QUOTED] if message else message
        return super().handle_error(request, status, exc, line)

    def _begin(self, turn: _Turn) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self._turn, self._since = turn, self._loop.time()
        if self._transport is None or turn is _Turn.ANSWER:
            return
        seconds, give_up = {
            _Turn.REQUEST: (IDLE_SECONDS, self.force_close),
            _Turn.HEAD: (HEAD_SECONDS, self._refuse_late_head),
            _Turn.READER: (READ_SECONDS, self._cut),
            _Turn.END: (END_SECONDS, self._cut),
        }[turn]
        self._deadline = self._loop.call_later(seconds, give_up)

    def _refuse_late_head(self) -> None:
        self._say(RequestTimeoutError(f"the request's headers did not arrive within {HEAD_SECONDS:g} s; send it whole"))
        self.force_close()

    def _say(self, error: SupervisorError) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(as_bytes(error))

    def _cut(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _is_whole(body: StreamReader) -> bool:
    # Read to its end, or arrived to its end.
    return body.is_eof() or body._eof


def _end(body: StreamReader) -> None:
    """Let whoever reads a body know that no more of it comes; one that is whole stays as it is."""
    if not _is_whole(body):
        body.set_exception(RequestPayloadError("the peer sends nothing more"))


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args = "a peer sent what is not HTTP: %s", (error.message.splitlines()[0],)
        record.exc_info, record.counted_as = None, "what is not HTTP"
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True


_LOGGER: Final = logging.getLogger("supervisor.api.connection")
"""For what is wrong below HTTP: anybody can send garbage, which earns a line and no traceback."""
_LOGGER.addFilter(_without_traceback)
