"""Who listens at a Unix socket's path."""

import errno
import os
import socket
import stat
from pathlib import Path


def connect(path: Path) -> int:
    """Return 0 where somebody listens at `path`, or an errno: ECONNREFUSED where nobody does any more.

    Does not wait. A path that is longer than sun_path, or none, has ENAMETOOLONG or EINVAL.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as peer:
        try:
            number = peer.connect_ex(os.fspath(path))
        except OSError:
            return errno.ENAMETOOLONG
        except ValueError:
            return errno.EINVAL
    # The queue of a listener is full: connect(2).
    return 0 if number == errno.EAGAIN else number


def remove_dead(directory: Path) -> None:
    """Remove the sockets in a directory, and below it, that nobody listens at; raises OSError.

    By the open directory, since its path may be longer than sun_path.
    """
    for _, _, names, folder in os.fwalk(directory):
        for name in names:
            mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
            if stat.S_ISSOCK(mode) and connect(Path(f"/proc/self/fd/{folder}/{name}")) == errno.ECONNREFUSED:
                os.unlink(name, dir_fd=folder)
