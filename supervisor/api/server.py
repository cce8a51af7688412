"""The Unix socket that the API answers on, from its binding to its removal."""

import asyncio
import contextlib
import errno
import os
import socket
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from supervisor.api.accepting import Accepting
from supervisor.api.app import build_app
from supervisor.api.closing import Closing
from supervisor.api.connection_limits import ConnectionLimits
from supervisor.api.connections import Connections
from supervisor.concurrency.tasks import to_its_end
from supervisor.errors import BadRequestError, InvalidStateError
from supervisor.host.event_bus import EventBus
from supervisor.system.lock_file import exclusively
from supervisor.system.same_file import is_at, status_at
from supervisor.system.unix_sockets import connect, too_long

if TYPE_CHECKING:
    from supervisor.host.host import Host

BACKLOG: Final = 4096
"""Connections that wait to be accepted, as far as net.core.somaxconn goes: who finds the queue full is told EAGAIN."""
ANSWER_SECONDS: Final = 1.0
"""How long a closing server lets answers be read before it cancels what sends them."""

LOCK_SECONDS: Final = 2.0
"""How long others may take for binding or removing the socket."""

MODE: Final = 0o660
"""The socket's: it is its owner's and its group's."""


LIMITS: Final = ConnectionLimits(in_all=512, of_user=256)
"""Where none are set."""


class Server:
    """A host's API, answering on its socket."""

    def __init__(
        self, socket_path: Path, runner: web.AppRunner, connections: Connections, closing: Closing, events: EventBus
    ) -> None:
        """`listen` makes it answer."""
        assert runner.server is not None
        self.socket_path = socket_path
        self._take = partial(connections.take, runner.server)
        self._runner = runner
        self._connections = connections
        self._closing = closing
        self._events = events
        self._file: os.stat_result | None = None
        self._listening: Accepting | None = None

    @property
    def in_place(self) -> bool:
        """Whether clients find its socket at the path."""
        return is_at(self.socket_path, self._file)

    async def listen(self) -> None:
        """Listen at the path, in place of a socket that is not there any more; connections go on.

        Raises BadRequestError where the path cannot be a socket's, InvalidStateError where somebody listens there, and
        OSError where there is no directory, or somebody does not let go of the lock.
        """
        # In a thread: it waits for whoever binds or removes a socket there.
        binding = asyncio.create_task(asyncio.to_thread(_bind, self.socket_path))
        try:
            listener, file = await asyncio.shield(binding)
            listening = Accepting(listener, self._take, self._connections.shed)
        except BaseException:
            await to_its_end(self._undo(binding))
            raise
        before, self._listening, self._file = self._listening, listening, file
        if before is not None:
            before.close()

    def refuse(self) -> None:
        """Accept nobody more, and end the streams and the waits."""
        self._events.close()
        self._closing.close()
        if self._listening is not None:
            self._listening.close()

    async def close(self) -> None:
        """Refuse, and end the connections; remove the socket if it is still this one."""
        self.refuse()
        await self._runner.cleanup()
        await self._connections.close()
        self._remove()

    async def _undo(self, binding: "asyncio.Task[tuple[socket.socket, os.stat_result]]") -> None:
        """Close and remove a socket that came to nothing: its thread makes it whoever waits for that."""
        await asyncio.wait((binding,))
        if binding.exception() is None:
            listener, self._file = binding.result()
            listener.close()
            self._remove()

    def _remove(self) -> None:
        # The directory may be gone, and the socket with it.
        with contextlib.suppress(OSError), _held(self.socket_path):
            if self.in_place:
                self.socket_path.unlink()
        self._file = None


async def serve(host: "Host", socket_path: Path, limits: ConnectionLimits = LIMITS) -> Server:
    """Answer for `host` on a Unix socket that its owner and group may open.

    Raises BadRequestError where the path cannot be a socket's, InvalidStateError where somebody listens there.
    """
    closing, connections = Closing(), Connections(limits)
    runner = web.AppRunner(build_app(host, closing, connections), shutdown_timeout=ANSWER_SECONDS)
    await runner.setup()
    server = Server(socket_path, runner, connections, closing, host.events)
    try:
        await server.listen()
    except BaseException:
        await runner.cleanup()
        await connections.close()
        raise
    return server


def _bind(path: Path) -> tuple[socket.socket, os.stat_result]:
    """Return a listening socket at `path`, which a dead supervisor may have left there."""
    problem = too_long(path)
    if problem:
        raise BadRequestError(f"{path}: {problem}; name a shorter one")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _held(path):
            _clear(path)
            # The file has the mode of its socket, less the umask: it is nobody else's before it is its group's.
            os.fchmod(listener.fileno(), MODE)
            listener.bind(os.fspath(path))
            path.chmod(MODE)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            file = status_at(path)
        if file is None:
            raise InvalidStateError(f"{path}: somebody removes the socket as soon as it is there; name another path")
    except BaseException:
        listener.close()
        raise
    return listener, file


def _held(path: Path) -> AbstractContextManager[None]:
    """Keep other supervisors from binding or removing this socket meanwhile.

    By a file beside it: the directory is held by its supervisor and by page servers for as long as they live.
    """
    return exclusively(path.with_name(f".{path.name}.lock"), LOCK_SECONDS)


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on; raises where there is anything else."""
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise BadRequestError(f"{path} exists and is not a socket; remove it, or name another path")
    if connect(path) != errno.ECONNREFUSED:
        raise InvalidStateError(f"another supervisor listens on {path}; stop it, or name another path")
    path.unlink()
