"""Whose socket a client speaks to: whoever answers there is told what to delete, and what he says is believed."""

import os
import pwd
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp

from supervisor.system.trusted_paths import distrusted
from supervisor.system.unix_sockets import peer_credentials
from supervisor.system.user_namespace import may_be_anybody

if TYPE_CHECKING:
    from aiohttp.client_proto import ResponseHandler
    from aiohttp.client_reqrep import ClientRequest
    from aiohttp.tracing import Trace


class UntrustedSocketError(Exception):
    """Somebody else may be at the other end of a socket; the message is one line that says who, and what to do."""


class TrustedConnector(aiohttp.UnixConnector):
    """Connects to a socket of root's, of this user's, or of the user's that is named; sends nothing to any other's."""

    def __init__(self, path: Path, supervisor_user: int | None) -> None:
        # A connection for each request: a Unix socket's costs microseconds, and a kept one would fail the first request
        # after the supervisor was restarted, which nobody may repeat for a verb.
        super().__init__(str(path), force_close=True, limit=0)
        self._socket = path
        named = () if supervisor_user is None else (supervisor_user,)
        self._users = frozenset(uid for uid in (0, os.geteuid(), *named) if not may_be_anybody(uid))

    async def _create_connection(
        self,
        req: "ClientRequest",
        traces: "list[Trace]",
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - as it is called
    ) -> "ResponseHandler":
        """Connect; raises UntrustedSocketError too.

        What the path leads to may change until it is connected to: who it was tells the connection.
        """
        self._check_path()
        made = await super()._create_connection(req, traces, timeout)
        transport = made.transport
        try:
            if transport is None:
                raise aiohttp.ClientOSError("the connection was lost")
            self._check_peer(transport.get_extra_info("socket"))
        except BaseException:
            if transport is not None:
                transport.abort()
            raise
        return made

    def _check_path(self) -> None:
        found = distrusted(self._socket, self._users)
        if found is not None:
            raise UntrustedSocketError(f"{self._socket}: {found.reason}; {_remedy(found.owner)}")

    def _check_peer(self, connection: socket.socket) -> None:
        uid = peer_credentials(connection).uid
        if uid not in self._users:
            raise UntrustedSocketError(f"{self._socket}: who answers there is uid {uid}; {_remedy(uid)}")


def _remedy(uid: int | None) -> str:
    """Return what to do where something is a user's, or may be anybody's."""
    elsewhere = "name another socket with --socket"
    if uid is None:
        return elsewhere
    if may_be_anybody(uid):
        return f"that may be anybody of another user namespace; {elsewhere}"
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    return f"{elsewhere}, or where it is that user's supervisor that you mean, say so with --supervisor-user {user}"
