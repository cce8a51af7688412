"""Connections to a Unix socket that are used only once it is known who is at their other end."""

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
        return connection
