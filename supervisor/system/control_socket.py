"""A process's end of its control socket: lines of JSON in, answers and events out, and nobody waited for.

Standard library only.
"""

import errno
import os
import select
import socket
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from supervisor.system.control_lines import LINE_BYTES, decode, encode
from supervisor.system.loop import Loop
from supervisor.system.same_file import is_at

MOST_CONNECTIONS = 64
"""A supervisor has one."""
MOST_DESCRIPTORS = 8
"""Of a request; those of a peer that sends more of them than requests are descriptors that forks lack."""
_UNSENT_BYTES = 1 << 20
"""A supervisor that reads nothing is dropped when so much waits for it; it finds the rest by `status`."""
_ACCEPT_RETRY = 1.0
"""Seconds until a listener is asked again, once there was no descriptor for a connection."""

Reply = Callable[[Mapping[str, Any]], None]
"""Answers a request, now or later, with `{"result": ...}` or `{"error": reason}`."""


class ControlSocket:
    """Listens for supervisors, once it is put at its path; there may be several, and none of them need stay.

    A request has the descriptors that came with it, in their order, as its field `descriptors`.
    """

    def __init__(
        self,
        loop: Loop,
        path: Path,
        on_request: Callable[[dict[str, Any], Reply], None],
        listen: Callable[[Path], socket.socket],
        on_hang_up: Callable[[], None] = lambda: None,
    ) -> None:
        """It listens by `listen`, which raises what is to be told where that cannot be, or another process does."""
        self._loop = loop
        self._path = path
        self._on_request = on_request
        self._listen_at = listen
        self._on_hang_up = on_hang_up
        self._connections: dict[_Connection, None] = {}
        self._listener: socket.socket | None = None
        self._file: os.stat_result | None = None

    @property
    def connected(self) -> bool:
        """Whether there is a supervisor."""
        return bool(self._connections)

    def serve(self, peer: socket.socket, *, quiet: bool = False) -> None:
        """Take a connection that was made in another way; raises OSError where it cannot be watched.

        One that is `quiet` gets answers alone, and stays though it asks for nothing: nobody may be reading it.
        """
        peer.setblocking(False)
        self._connections[_Connection(self._loop, peer, self._on_request, self._on_close, quiet=quiet)] = None

    def broadcast(self, line: bytes) -> None:
        """Send a line to every supervisor that is connected."""
        for connection in tuple(self._connections):
            if not connection.quiet:
                connection.send(line)

    def close(self) -> None:
        """Hang up on all, stop listening and remove the socket."""
        for connection in tuple(self._connections):
            connection.close()
        if self._listener is not None:
            self._loop.unwatch(self._listener.fileno())
            self._listener.close()
        if self._in_place:
            self._path.unlink()

    def _on_close(self, connection: "_Connection") -> None:
        self._connections.pop(connection, None)
        self._on_hang_up()

    @property
    def _in_place(self) -> bool:
        return is_at(self._path, self._file)

    def put_back(self) -> bool:
        """Listen at the path, unless it does; whether that was to be done. Connections go on.

        Raises what `listen` does; what lies there is left alone, but for a socket that nobody listens at.
        """
        if self._in_place:
            return False
        before, self._listener = self._listener, self._listen_at(self._path)
        self._file = self._path.lstat()
        self._listen(self._listener)
        if before is not None:
            self._loop.unwatch(before.fileno())
            before.close()
        return True

    def listen_by(self, listener: socket.socket) -> None:
        """Listen by a socket that another process has bound, in place of any before; connections go on.

        Its file is that process's to remove. Raises OSError.
        """
        listener.setblocking(False)
        # By this process: whoever connects sees who has called listen(2), unix(7).
        listener.listen()
        before, self._listener, self._file = self._listener, listener, None
        self._listen(listener)
        if before is not None:
            self._loop.unwatch(before.fileno())
            before.close()

    def _listen(self, listener: socket.socket) -> None:
        if listener.fileno() < 0:  # it may be closed by now
            return
        try:
            self._loop.watch(listener.fileno(), partial(self._on_connection, listener))
        except OSError:
            self._loop.call_later(_ACCEPT_RETRY, partial(self._listen, listener))

    def _on_connection(self, listener: socket.socket) -> None:
        try:
            peer, _ = listener.accept()
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE):
                # The peer stays in the queue, and the listener ready: it would be asked again and again.
                self._loop.unwatch(listener.fileno())
                self._loop.call_later(_ACCEPT_RETRY, partial(self._listen, listener))
            return  # else the peer has left again
        if len(self._connections) >= MOST_CONNECTIONS and not self._give_way():
            peer.close()
            return
        try:
            self.serve(peer)
        except OSError:
            # It cannot be watched: the supervisor sees the end of it, and asks anew.
            peer.close()

    def _give_way(self) -> bool:
        """Hang up on the oldest that has never asked for anything, and return whether there is one; supervisors ask."""
        silent = next((one for one in self._connections if not (one.has_asked or one.quiet)), None)
        if silent is not None:
            silent.close()
        return silent is not None


class _Connection:
    """One supervisor's connection."""

    def __init__(
        self,
        loop: Loop,
        peer: socket.socket,
        on_request: Callable[[dict[str, Any], Reply], None],
        on_close: Callable[["_Connection"], None],
        *,
        quiet: bool,
    ) -> None:
        self._loop = loop
        self._peer = peer
        self._on_request = on_request
        self._on_close = on_close
        self._received = b""
        self._descriptors: list[int] = []
        self._unsent = b""
        self._closed = False
        self.has_asked = False
        self.quiet = quiet
        loop.watch(peer.fileno(), self._on_ready)

    def send(self, line: bytes) -> None:
        """Send without blocking; what the socket does not take is kept within a bound."""
        if self._closed:
            return
        waited = bool(self._unsent)
        self._unsent += line
        if not waited:
            self._flush()
        if len(self._unsent) > _UNSENT_BYTES:
            self.close()

    def close(self) -> None:
        """Hang up."""
        if not self._closed:
            self._closed = True
            self._loop.unwatch(self._peer.fileno())
            self._peer.close()
            self._drop_descriptors()
            self._on_close(self)

    def _on_ready(self) -> None:
        if self._unsent:
            self._flush()
        if self._closed:
            return
        try:
            piece, descriptors, _, _ = socket.recv_fds(
                self._peer, LINE_BYTES, MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            piece, descriptors = b"", []
        self._descriptors += descriptors
        *lines, self._received = (self._received + piece).split(b"\n")
        for line in lines:
            self._take(line)
        if lines:
            self._drop_descriptors()
        if not piece or len(self._received) > LINE_BYTES or len(self._descriptors) > MOST_DESCRIPTORS:
            self.close()

    def _drop_descriptors(self) -> None:
        """Close what came with a request: whoever wanted it has duplicated it."""
        for descriptor in self._descriptors:
            os.close(descriptor)
        self._descriptors = []

    def _flush(self) -> None:
        try:
            self._unsent = self._unsent[self._peer.send(self._unsent) :]
        except BlockingIOError:
            pass
        except OSError:
            self.close()
            return
        self._loop.want(self._peer.fileno(), select.EPOLLIN | (select.EPOLLOUT if self._unsent else 0))

    def _take(self, line: bytes) -> None:
        try:
            request = decode(line)
        except ValueError as error:
            self.send(encode({"id": None, "error": f"the request is no JSON object: {error}"}))
            return
        self.has_asked = True
        number = request.pop("id", None)
        request["descriptors"] = tuple(self._descriptors)
        self._on_request(request, lambda answer: self.send(encode({"id": number, **answer})))
