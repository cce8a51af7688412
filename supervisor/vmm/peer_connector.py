"""Connections to a Unix socket that are used once it is known who is at their other end, and read only so far."""

import asyncio
import os
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import ClientError, ClientRequest, ClientTimeout, UnixConnector
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from supervisor.system.unix_sockets import peer_credentials


class EndlessAnswerError(ClientError):
    """The peer has sent more than any answer may have."""


class BoundedProtocol(ResponseHandler):
    """Reads what a peer sends from one request to the next, heads and all, up to `limit` bytes, and then closes.

    aiohttp bounds a line, and neither what an answer has of them nor what comes unasked.
    """

    def __init__(self, limit: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._limit = limit
        self._received = 0

    def begin(self) -> None:
        """Count from here on."""
        self._received = 0

    def data_received(self, data: bytes) -> None:
        """Take what came, while it may be of an answer."""
        self._received += len(data)
        if self._received <= self._limit:
            super().data_received(data)
        elif self.transport is not None and not self.transport.is_closing():
            error = EndlessAnswerError()
            self.set_exception(error)
            if self._payload is not None:
                self._payload.set_exception(error)
            self.close()


class PeerConnector(UnixConnector):
    """Gives out connections whose peer is one that `check` takes; what that raises is raised of a request.

    Of an answer it takes `limit` bytes; of a longer one EndlessAnswerError is raised.
    """

    def __init__(
        self, path: os.PathLike[str], check: Callable[[int], None], *, limit: int, keepalive_timeout: float
    ) -> None:
        super().__init__("", keepalive_timeout=keepalive_timeout)
        self._where = path
        self._factory: Any = partial(BoundedProtocol, limit, loop=asyncio.get_running_loop())
        self._check = check
        self._transports: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()

    @property
    def connected(self) -> bool:
        """Whether a connection to the peer is open, in use or kept."""
        return any(not transport.is_closing() for transport in self._transports)

    async def _create_connection(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's own name
    ) -> ResponseHandler:
        # What it is reached by may be known later only, and is another after its end.
        self._path = os.fspath(self._where)
        return await super()._create_connection(req, traces, timeout)

    async def connect(
        self,
        req: ClientRequest,
        traces: list[Trace],
        timeout: ClientTimeout,  # noqa: ASYNC109 - aiohttp's own name
    ) -> Connection:
        """Return a connection, new or used before, whose peer has been checked."""
        connection = await super().connect(req, traces, timeout)
        # None once the peer has closed it, as the request is about to find out.
        if connection.transport is not None:
            try:
                self._check(peer_credentials(connection.transport.get_extra_info("socket")).pid)
            except BaseException:
                connection.close()
                raise
            self._transports.add(connection.transport)
            assert isinstance(connection.protocol, BoundedProtocol)
            connection.protocol.begin()
        return connection
