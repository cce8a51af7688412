"""Connections to a Unix socket that are used only once it is known who is at their other end."""

import asyncio
import weakref
from collections.abc import Callable

from aiohttp import ClientRequest, ClientTimeout, UnixConnector
from aiohttp.connector import Connection
from aiohttp.tracing import Trace

from supervisor.system.unix_sockets import peer_credentials


class PeerConnector(UnixConnector):
    """Gives out connections whose peer is one that `check` takes; what that raises is raised of a request."""

    def __init__(self, path: str, check: Callable[[int], None], *, keepalive_timeout: float) -> None:
        super().__init__(path, keepalive_timeout=keepalive_timeout)
        self._check = check
        self._transports: weakref.WeakSet[asyncio.BaseTransport] = weakref.WeakSet()

    @property
    def connected(self) -> bool:
        """Whether a connection to the peer is open, in use or kept."""
        return any(not transport.is_closing() for transport in self._transports)

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
        return connection
