"""All connections of one server: who may come, who gives way to whom, and which may be without an end."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from typing import Final

from aiohttp import web

from supervisor.api.answers import as_bytes
from supervisor.api.connection import Connection
from supervisor.api.connection_limits import LEAST, ConnectionLimits
from supervisor.api.peer import LOGGER, is_owner
from supervisor.concurrency.tasks import Background
from supervisor.errors import SupervisorError
from supervisor.system.descriptors import limit_of, opened_by
from supervisor.system.hang_ups import HangUps
from supervisor.system.unix_sockets import peer_credentials

LOOK_SECONDS: Final = 1.0
"""How often it is looked whether guests have left descriptors for so many."""
_READ: Final = 64 << 10


class TooManyConnectionsError(SupervisorError):
    """There is no room for one more connection, or for one more answer without an end."""

    code = "too_many_connections"
    status = 503


class Connections:
    """The open ones, and the limits that they are held to; for one event loop."""

    def __init__(self, limits: ConnectionLimits) -> None:
        self._limits = limits
        self._open: set[Connection] = set()
        self._endless: dict[Connection, asyncio.Task[object]] = {}
        self._hang_ups = HangUps()
        self._joining = Background("the beginning of a connection")
        self._looking: asyncio.TimerHandle | None = None

    def take(self, server: web.Server, peer: socket.socket) -> None:
        """Let a peer that was accepted speak with the server; or tell him why not, and hang up."""
        uid = peer_credentials(peer).uid
        try:
            self._make_room(uid)
        except TooManyConnectionsError as error:
            LOGGER.warning("a connection is refused: %s", error.message)
            _refuse(peer, error)
            return
        connection = Connection(server, uid, self._hang_ups, self._lost)
        self._open.add(connection)
        self._joining.spawn(self._join(connection, peer))
        self._look_later()

    def shed(self) -> None:
        """Let those go for which descriptors are lacking, as far as they only wait for their peers."""
        excess = len(self._open) - self._limits_now().in_all
        for _ in range(excess):
            if not self._give_way(self._open, _short_of_descriptors()):
                return

    @contextlib.contextmanager
    def endless(self, request: web.Request) -> Iterator[None]:
        """Let an answer take as long as it will, until its peer is gone: its task is cancelled then.

        Raises TooManyConnectionsError where its user has enough of them.
        """
        connection, task = request.protocol, asyncio.current_task()
        assert isinstance(connection, Connection)
        assert task is not None
        most = self._limits_now().endless_of_user
        if sum(one.uid == connection.uid for one in self._endless) >= most:
            raise TooManyConnectionsError(
                f"uid {connection.uid} has {most} streams and waits, the most that one user may have; end one"
            )
        self._endless[connection] = task
        try:
            yield
        finally:
            self._endless.pop(connection, None)

    async def close(self) -> None:
        """Look no more; the connections are aiohttp's to end."""
        if self._looking is not None:
            self._looking.cancel()
        await self._joining.cancel()
        self._hang_ups.close()

    def _make_room(self, uid: int) -> None:
        """Have the connection go that was waited for the longest, where one more would be too many.

        Of those that are too many: the newcomer's own, or the onlookers', or those of the user who has the most.
        """
        limits = self._limits_now()
        own = {one for one in self._open if one.uid == uid}
        onlookers = set() if is_owner(uid) else {one for one in self._open if not is_owner(one.uid)}
        for among, most, whose in (
            (own, limits.of_user, f"of uid {uid}, the most that one user may have (max_connections_of_user)"),
            (onlookers, limits.of_onlookers, "of users who may only look, the most there may be (max_connections)"),
            (self._open, limits.in_all, "the most there may be (max_connections)"),
        ):
            if len(among) < most:
                continue
            error = TooManyConnectionsError(f"there are {most} connections {whose}; close some, or ask again")
            if not self._give_way(among, error):
                raise error

    def _give_way(self, among: set[Connection], error: TooManyConnectionsError) -> bool:
        waited = [(since, one) for one in among & self._open if (since := one.waited_since) is not None]
        if not waited:
            return False
        shares: dict[int, int] = {}
        for _, one in waited:
            shares[one.uid] = shares.get(one.uid, 0) + 1
        _, victim = min(waited, key=lambda pair: (-shares[pair[1].uid], pair[0]))
        self._open.discard(victim)
        LOGGER.warning("a connection of uid %d that waited for its peer gives way: %s", victim.uid, error.message)
        victim.give_way(error)
        return True

    def _limits_now(self) -> ConnectionLimits:
        """Return the limits beside what guests have open."""
        own = os.getpid()
        try:
            limit, opened = limit_of(own), opened_by(own)
        except OSError:
            return self._limits.within(0)
        return self._limits.within(None if limit is None else limit - (opened - len(self._open)))

    async def _join(self, connection: Connection, peer: socket.socket) -> None:
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: connection, peer)
        except BaseException:
            self._lost(connection)
            peer.close()
            raise

    def _lost(self, connection: Connection) -> None:
        self._open.discard(connection)
        task = self._endless.pop(connection, None)
        if task is not None:
            task.cancel()

    def _look_later(self) -> None:
        if self._looking is None and len(self._open) > LEAST:
            self._looking = asyncio.get_running_loop().call_later(LOOK_SECONDS, self._look)

    def _look(self) -> None:
        self._looking = None
        self.shed()
        self._look_later()


def _short_of_descriptors() -> TooManyConnectionsError:
    return TooManyConnectionsError("guests have left no descriptor for so many connections; ask again")


def _refuse(peer: socket.socket, error: TooManyConnectionsError) -> None:
    with peer, contextlib.suppress(OSError):
        peer.send(as_bytes(error))
        # What is left unread at the close resets the connection, and a client may look at that first.
        peer.recv(_READ)
