"""Many connections at once that ask for nothing, or are slow about it."""

import contextlib
import select
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

from tests.harness.unix_http import TIMEOUT

BEGUN = b"POST /instances HTTP/1.1\r\nHost: x\r\nX: "
"""A head that goes on."""
EVENTS = b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n"


class Crowd:
    """Peers of one supervisor, as many as descriptors allow here."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.peers: list[socket.socket] = []

    def join(self, count: int, sent: bytes = b"") -> None:
        """Connect so many more, each of which says this and does not read; raises BlockingIOError where none is
        accepted for long."""
        for _ in range(count):
            peer = socket.socket(socket.AF_UNIX)
            self.peers.append(peer)
            # connect(2) is held to it too. With a timeout of Python's a full queue would be an error at once.
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", int(TIMEOUT), 0))
            peer.connect(str(self._path))
            peer.settimeout(TIMEOUT)
            say(peer, sent)

    def trickle(self) -> None:
        """Have each say one byte more, unless it was hung up on."""
        for peer in self.peers:
            say(peer, b"y")

    def left(self) -> int:
        """Return how many were not hung up on."""
        looked_at = select.poll()
        for peer in self.peers:
            looked_at.register(peer, 0)
        return len(self.peers) - len(looked_at.poll(0))


def say(peer: socket.socket, sent: bytes) -> None:
    """Send what a peer's socket takes, unless it was hung up on."""
    with contextlib.suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
        peer.send(sent, socket.MSG_DONTWAIT)


@contextlib.contextmanager
def crowd(path: Path) -> Iterator[Crowd]:
    """Yield a crowd of nobody yet, which leaves with the context."""
    made = Crowd(path)
    try:
        yield made
    finally:
        for peer in made.peers:
            peer.close()
