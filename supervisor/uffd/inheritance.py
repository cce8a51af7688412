"""What a page server is handed as it starts, on the socket that is its standard input; standard library only.

Its standard output is the other end of that socket from then on: by it a supervisor that may trace it reaches it where
its control socket is gone, and a connection with it.
"""

import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from supervisor.errors import PageServerError

STDIN, WAY_BACK = 0, 1
_AT_ONCE = 200
"""Of the 253 that the kernel takes in one message: SCM_MAX_FD in include/net/scm.h."""
_SECONDS = 15.0


class Inheritance(NamedTuple):
    """Descriptors, which are the page server's own."""

    way_back: int
    """The other end of the socket that these came by."""
    control: int
    """A socket that is bound, for its supervisors to connect to."""
    lock: int
    """The directory where that is, held."""
    own_directory: int
    """Where its hot-page list is."""
    layers: tuple[int, ...]
    """The memory image's files, newest first."""


def bequeath(channel: socket.socket, descriptors: Sequence[int]) -> None:
    """Send what `inherited` receives, at once; raises OSError."""
    for start in range(0, len(descriptors), _AT_ONCE):
        socket.send_fds(channel, [b"."], descriptors[start : start + _AT_ONCE])


def inherited(layers: int) -> Inheritance:
    """Receive what was sent for an image of so many layers; PageServerError where it did not come."""
    wanted, received = len(Inheritance._fields) - 1 + layers, list[int]()
    try:
        with socket.socket(fileno=os.dup(STDIN)) as channel:
            channel.settimeout(_SECONDS)
            while len(received) < wanted:
                said, descriptors, _, _ = socket.recv_fds(channel, 1, _AT_ONCE, socket.MSG_CMSG_CLOEXEC)
                received += descriptors
                if not said or not descriptors:
                    break
    except OSError as error:
        raise PageServerError(f"nothing was handed to it on standard input: {error.strerror or error}") from error
    if len(received) != wanted:
        raise PageServerError(f"{len(received)} descriptors were handed to it, and it needs {wanted}")
    way_back, control, lock, own_directory, *rest = received
    return Inheritance(way_back, control, lock, own_directory, tuple(rest))
