"""Who has gone of those that send nothing more: a half-closed connection tells its reader the same for ever."""

import asyncio
import select
import socket
from collections.abc import Callable


class HangUps:
    """Waits for the other ends of half-closed connections to go; for one event loop."""

    def __init__(self) -> None:
        self._epoll: select.epoll | None = None
        self._calls: dict[int, Callable[[], None]] = {}

    def watch(self, connection: socket.socket, on_gone: Callable[[], None]) -> None:
        """Call `on_gone` once, when the other end is closed.

        Raises OSError without a descriptor, or where the kernel has no room for one more (epoll(7)).
        """
        if connection.fileno() in self._calls:
            return
        if self._epoll is None:
            self._epoll = select.epoll()
            asyncio.get_running_loop().add_reader(self._epoll.fileno(), self._on_ready, self._epoll)
        # Nothing but EPOLLHUP is told then: of a Unix socket when both directions are shut (unix_poll in af_unix.c).
        self._epoll.register(connection.fileno(), 0)
        self._calls[connection.fileno()] = on_gone

    def unwatch(self, connection: socket.socket) -> None:
        """Watch it no longer; before it is closed."""
        if self._calls.pop(connection.fileno(), None) is not None and self._epoll is not None:
            self._epoll.unregister(connection.fileno())

    def close(self) -> None:
        """Watch none any more."""
        self._calls.clear()
        if self._epoll is not None:
            asyncio.get_running_loop().remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._epoll = None

    def _on_ready(self, epoll: select.epoll) -> None:
        for number, _ in epoll.poll(0):
            epoll.unregister(number)
            self._calls.pop(number)()
