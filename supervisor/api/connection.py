"""One connection below HTTP: what is answered and logged when its bytes are no request."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

_QUOTED: Final = 200
"""Characters of a parser's message that go back."""


class Connection(web.RequestHandler):
    """aiohttp's connection, with an answer to garbage that its sender need not read."""

    __slots__ = ()

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


def connection_factory(server: web.Server) -> Callable[[], Connection]:
    """Return what makes the protocol of each connection that is accepted."""
    loop, logger = asyncio.get_running_loop(), _connection_logger()

    def connection() -> Connection:
        # A body that is encoded is refused, and not decoded before that.
        return Connection(server, loop=loop, logger=logger, access_log=None, auto_decompress=False)  # type: ignore[arg-type]

    return connection


def _connection_logger() -> logging.Logger:
    """Return the logger for what is wrong below HTTP: anybody can send garbage, which earns a line and no traceback."""
    logger = logging.getLogger("supervisor.api.connection")
    logger.addFilter(_without_traceback)
    return logger


def _without_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, HttpProcessingError):
        record.msg, record.args = "a peer sent what is not HTTP: %s", (error.message.splitlines()[0],)
        record.exc_info = None
        record.levelno, record.levelname = logging.WARNING, "WARNING"
    return True
