"""Who listens at a Unix socket's path."""

import errno
import os
import socket
import stat
import struct
from pathlib import Path
from typing import Final

_CREDENTIALS: Final = struct.Struct("3i")
"""struct ucred: pid, uid, gid."""


def connect(path: Path) -> int:
    """Return 0 where somebody listens at `path`, or an errno: ECONNREFUSED where nobody does any more.

    Does not wait. A path that is longer than sun_path, or none, has ENAMETOOLONG or EINVAL.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as peer:
        number = _connect(peer, path)
    # The queue of a listener is full: connect(2).
    return 0 if number == errno.EAGAIN else number


def listener_pid(path: Path) -> int | None:
    """Return who listens at `path`: 0 where that is not to be known, None where nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as peer:
        match _connect(peer, path):
            case 0:
                # Of a connection that was made, those who called listen(2) for it: unix(7).
                credentials = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                return int(_CREDENTIALS.unpack(credentials)[0])
            case errno.EAGAIN:
                return 0
            case _:
                return None


def remove_dead(directory: Path) -> None:
    """Remove the sockets in a directory, and below it, that nobody listens at; raises OSError.

    By the open directory, since its path may be longer than sun_path.
    """
    for _, _, names, folder in os.fwalk(directory):
        for name in names:
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISSOCK(mode) and connect(Path(f"/proc/self/fd/{folder}/{name}")) == errno.ECONNREFUSED:
                os.unlink(name, dir_fd=folder)


def _connect(peer: socket.socket, path: Path) -> int:
    try:
        return peer.connect_ex(os.fspath(path))
    except OSError:
        return errno.ENAMETOOLONG
    except ValueError:
        return errno.EINVAL
