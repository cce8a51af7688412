"""Connections to a Unix socket, also where the queue of its listener is full for a while."""

import asyncio
import socket
from pathlib import Path
from struct import Struct
from typing import Any, Final

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError

from forktui.client.trust import Trust
from supervisor.system.unix_sockets import peer_credentials

CONNECT_SECONDS: Final = 5.0
_SLICE_SECONDS: Final = 0.5
"""How long a thread waits for room in the queue at a time: the end of the program waits for it."""
_TIMEVAL: Final = Struct("ll")


class SocketConnector(aiohttp.UnixConnector):
    """Makes a connection for each request, to whom is trusted, and notes who listens."""

    peer_pid: int = 0
    """The process that listened at the last connection; 0 where none was made, or of another pid namespace."""

    def __init__(self, path: Path, trust: Trust) -> None:
        # A Unix socket's connection costs microseconds, and a kept one would fail the first request after the
        # supervisor was restarted, which nobody may repeat for a verb.
        super().__init__(str(path), force_close=True, limit=0)
        self._trust = trust

    async def _create_connection(self, req: Any, traces: Any, timeout: aiohttp.ClientTimeout) -> Any:  # noqa: ASYNC109
        """Connect; raises UntrustedSocketError too.

        What the path leads to may change until it is connected to: who it was tells the connection.
        """
        self._trust.check_path()
        try:
            async with asyncio.timeout(timeout.sock_connect):
                connection = await self._connected()
        except OSError as error:
            raise UnixClientConnectorError(self.path, req.connection_key, error) from error
        _, protocol = await self._loop.create_unix_connection(self._factory, sock=connection)
        return protocol

    async def _connected(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            await self._connect(connection)
            peer = peer_credentials(connection)
            self._trust.check_peer(peer.uid)
            self.peer_pid = peer.pid
            connection.setblocking(False)
        except BaseException:
            connection.close()
            raise
        return connection

    async def _connect(self, connection: socket.socket) -> None:
        """Connect; where the queue is full connect(2) is EAGAIN, which asyncio takes for a connection under way."""
        connection.setblocking(False)
        try:
            connection.connect(self.path)
        except BlockingIOError:
            connection.setblocking(True)
            limit = _TIMEVAL.pack(int(_SLICE_SECONDS), int(_SLICE_SECONDS % 1 * 1e6))
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
            while not await asyncio.to_thread(_connects, connection, self.path):
                pass
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(0, 0))


def _connects(connection: socket.socket, path: str) -> bool:
    try:
        connection.connect(path)
    except BlockingIOError:
        return False
    return True
