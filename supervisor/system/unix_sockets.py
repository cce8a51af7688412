"""Unix sockets: how long a path may be, who listens at one, and who is at the other end of a connection."""

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path, PurePosixPath
from struct import Struct
from typing import Final, NamedTuple

from supervisor.system.processes import start_time_of
from supervisor.system.regular_files import descended

SUN_PATH_BYTES: Final = 107
"""What a socket's path may have: sun_path is 108 with its closing NUL (unix(7))."""

_UCRED: Final = Struct("=iII")
_TIMEVAL: Final = Struct("@ll")
_CONNECT_SECONDS: Final = 1
"""For which a connection waits where the queue of a listener is full."""


class Credentials(NamedTuple):
    """struct ucred, as the kernel noted it at connect(2) or, of a listener, at listen(2): SO_PEERCRED of unix(7)."""

    pid: int
    """0 for a process that this pid namespace does not show."""
    uid: int
    gid: int


def peer_credentials(connection: socket.socket) -> Credentials:
    """Return who is at the other end of a connection."""
    return Credentials(*_UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)))


def too_long(path: Path) -> str | None:
    """Return what is wrong with the length of a socket's path, or None."""
    length = len(os.fsencode(path))
    if length <= SUN_PATH_BYTES:
        return None
    return f"a socket's path may have {SUN_PATH_BYTES} bytes, and this one has {length}"


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


class ListensAlreadyError(OSError):
    """Another process listens at the path."""


def listen(path: Path, mode: int | None = None) -> socket.socket:
    """Return a listening socket at `path`, non-blocking, in the place of one that nobody listens at any more.

    With a mode its file never has any but that, less the umask. Raises OSError where the path cannot be one,
    ListensAlreadyError where somebody does listen there.
    """
    listener = bound(path, mode)
    try:
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


def bound(path: Path, mode: int | None = None) -> socket.socket:
    """Return what `listen` does before it listens, for another process to; raises the same."""
    problem = too_long(path)
    if problem:
        raise OSError(errno.ENAMETOOLONG, problem, str(path))
    if path.is_socket():
        match connect(path):
            case 0:
                raise ListensAlreadyError(errno.EADDRINUSE, "another process listens there", str(path))
            case errno.ECONNREFUSED:
                path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        if mode is not None:
            # The file is made with the socket's own mode: unix_bind_bsd in net/unix/af_unix.c.
            os.fchmod(listener.fileno(), mode)
        listener.bind(os.fspath(path))
    except OSError:
        listener.close()
        raise
    return listener


def is_stale(path: Path) -> bool:
    """Return whether there is a socket at `path` that nobody listens at any more."""
    try:
        mode = path.lstat().st_mode
    except OSError:
        return False
    # connect(2) refuses what is no socket by the same number.
    return stat.S_ISSOCK(mode) and connect(path) == errno.ECONNREFUSED


def listening_pid(path: Path) -> int:
    """Return the pid of the process that listens at `path`, 0 for one of another pid namespace; raises OSError.

    Does not wait: BlockingIOError where the queue of the listener is full.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as peer:
        peer.connect(os.fspath(path))
        return peer_credentials(peer).pid


def held_socket(directory: Path, name: str) -> int:
    """Return a descriptor (O_PATH) of a socket below a directory, no link being followed on the way there.

    /proc/self/fd/<it> is a path for connect(2), however long its own is. Raises OSError, for anything else too.
    """
    with descended(directory, PurePosixPath(name).parent.parts) as folder:
        held = os.open(PurePosixPath(name).name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    if not stat.S_ISSOCK(os.fstat(held).st_mode):
        os.close(held)
        raise OSError(errno.ENOTSOCK, "it is no socket", str(directory / name))
    return held


def listener_at(path: Path) -> tuple[int, int] | None:
    """Return the pid and the start time (clock ticks since boot) of the process that listens at `path`, or None.

    Waits for a second where its queue is full: None where that stays so. Blocks.
    """
    with socket.socket(socket.AF_UNIX) as connection:
        # Python's own time-out makes the socket non-blocking, and then a full queue is EAGAIN at once: unix(7).
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL.pack(_CONNECT_SECONDS, 0))
        try:
            connection.connect(os.fspath(path))
            pid = peer_credentials(connection).pid
            return pid, start_time_of(pid)
        except OSError:
            return None


def remove_file(path: Path) -> None:
    """Remove what is at a path of ours; a directory that somebody has made in its place is left where it is."""
    with contextlib.suppress(FileNotFoundError, IsADirectoryError, NotADirectoryError):
        path.unlink()


def remove_stale(directory: Path) -> None:
    """Remove the sockets in a directory, and below it, that nobody listens at; raises OSError.

    By the open directory, since its path may be longer than sun_path. What a process works in `directory` and binds has
    a path that goes no deeper than sun_path does.
    """
    top = len(directory.parts)
    for path, folders, names, folder in os.fwalk(directory):
        if len(Path(path).parts) - top > SUN_PATH_BYTES // 2:
            folders.clear()
        for name in names:
            if is_stale(Path(f"/proc/self/fd/{folder}/{name}")):
                os.unlink(name, dir_fd=folder)
