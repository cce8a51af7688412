"""Accepts connections at a listening socket; asyncio takes a backlog at once, and logs a stack for each failure."""

import asyncio
import logging
import socket
from collections.abc import Callable
from typing import Final

REST_SECONDS: Final = 0.5
"""Until it is tried again where the kernel has no descriptor or memory for one more; they wait in the queue."""

_log = logging.getLogger(__name__)


class Accepting:
    """Gives each connection to `take`, and calls `shed` where there is none to be had; in a running event loop."""

    def __init__(
        self, listener: socket.socket, take: Callable[[socket.socket], None], shed: Callable[[], None]
    ) -> None:
        """`listener` does not block, and is this one's to close; raises OSError where it cannot be watched."""
        self._listener = listener
        self._take = take
        self._shed = shed
        self._loop = asyncio.get_running_loop()
        self._resting: asyncio.TimerHandle | None = None
        self._begin()

    def close(self) -> None:
        """Accept nobody more; may be called again."""
        if self._listener.fileno() < 0:
            return
        if self._resting is not None:
            self._resting.cancel()
        else:
            self._loop.remove_reader(self._listener)
        self._listener.close()

    def _begin(self) -> None:
        self._resting = None
        self._loop.add_reader(self._listener, self._on_ready)

    def _on_ready(self) -> None:
        # One, and then those that were accepted before have their turn: who gives way to the next has been heard first.
        try:
            peer, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            self._rest(error)
            return
        peer.setblocking(False)
        self._take(peer)

    def _rest(self, error: OSError) -> None:
        """Listen again later: the listener stays ready, and the loop would do nothing but ask it."""
        _log.warning("no connection can be accepted: %s; others are answered, and it is tried again", error.strerror)
        self._loop.remove_reader(self._listener)
        self._shed()
        self._resting = self._loop.call_later(REST_SECONDS, self._begin)
