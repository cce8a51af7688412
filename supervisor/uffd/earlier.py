"""Page servers of earlier versions, which run on: what they are asked otherwise."""

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from supervisor.errors import PageServerError


@contextlib.contextmanager
def rebound(listener: socket.socket) -> Iterator[Path]:
    """Give the path of a listening socket, for a page server to bind within the context; its file is as it was then.

    Raises PageServerError.
    """
    path = Path(os.path.realpath(listener.getsockname()))
    try:
        status = path.lstat()
        path.unlink()
        yield path
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
        path.chmod(stat.S_IMODE(status.st_mode))
    except OSError as error:
        raise PageServerError(f"no VMM can connect at {path}: {error.strerror}") from error
