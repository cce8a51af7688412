"""The Unix socket that the API answers on, from its binding to its removal."""

import asyncio
import errno
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from aiohttp import web

from supervisor.api.app import build_app
from supervisor.api.closing import Closing
from supervisor.api.connection import connection_factory
from supervisor.errors import BadRequestError, InvalidStateError
from supervisor.host.event_bus import EventBus
from supervisor.system.unix_sockets import connect, too_long

if TYPE_CHECKING:
    from supervisor.host.host import Host

BACKLOG: Final = 512
ANSWER_SECONDS: Final = 1.0
"""How long a closing server lets answers be read before it cancels what sends them."""

_UMASK: Final = 0o117
"""What it leaves of a socket's 0777 is 0660."""


@dataclass(frozen=True)
class Inode:
    """Which file a path leads to."""

    device: int
    number: int


@dataclass(frozen=True)
class Server:
    """A host's API, answering on its socket."""

    socket_path: Path
    _inode: Inode
    _listening: asyncio.Server
    _runner: web.AppRunner
    _closing: Closing
    _events: EventBus

    def refuse(self) -> None:
        """Accept nobody more, and end the streams and the waits."""
        self._events.close()
        self._closing.close()
        self._listening.close()

    async def close(self) -> None:
        """Refuse, and end the connections; remove the socket if it is still this one."""
        self.refuse()
        await self._runner.cleanup()
        with _held(self.socket_path.parent):
            if _inode_at(self.socket_path) == self._inode:
                self.socket_path.unlink()


async def serve(host: "Host", socket_path: Path) -> Server:
    """Answer for `host` on a Unix socket that its owner and group may open.

    Raises BadRequestError where the path cannot be a socket's, InvalidStateError where somebody listens there.
    """
    listener, inode = _bind(socket_path)
    closing = Closing()
    app = build_app(host, closing)
    runner = web.AppRunner(app, shutdown_timeout=ANSWER_SECONDS)
    await runner.setup()
    assert runner.server is not None
    factory = connection_factory(runner.server)
    listening = await asyncio.get_running_loop().create_unix_server(factory, sock=listener, backlog=BACKLOG)
    return Server(socket_path, inode, listening, runner, closing, host.events)


def _bind(path: Path) -> tuple[socket.socket, Inode]:
    """Return a listening socket at `path`, which a dead supervisor may have left there."""
    problem = too_long(path)
    if problem:
        raise BadRequestError(f"{path}: {problem}; name a shorter one")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _held(path.parent):
            _clear(path)
            before = os.umask(_UMASK)
            try:
                listener.bind(os.fspath(path))
            finally:
                os.umask(before)
            listener.listen(BACKLOG)
            listener.setblocking(False)
            inode = _inode_at(path)
    except BaseException:
        listener.close()
        raise
    if inode is None:
        raise InvalidStateError(f"{path}: somebody removes the socket as soon as it is there; name another path")
    return listener, inode


@contextmanager
def _held(directory: Path) -> Iterator[None]:
    """Keep other supervisors from binding or removing sockets in the directory meanwhile."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clear(path: Path) -> None:
    """Remove a socket that nobody listens on; raises where there is anything else."""
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise BadRequestError(f"{path} exists and is not a socket; remove it, or name another path")
    if connect(path) != errno.ECONNREFUSED:
        raise InvalidStateError(f"another supervisor listens on {path}; stop it, or name another path")
    path.unlink()


def _inode_at(path: Path) -> Inode | None:
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    return Inode(status.st_dev, status.st_ino)
