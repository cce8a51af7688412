"""The socket of a VMM's API: found once it listens, known again, and reached, by its path or in a jail."""

import contextlib
import errno
import os
import stat
from abc import ABC, abstractmethod
from pathlib import Path

from supervisor.errors import BadRequestError, VmmError
from supervisor.system.same_file import is_at, status_at
from supervisor.system.unix_sockets import connect, held_socket, is_stale, listening_pid, remove_file, too_long


class ApiSocket(ABC):
    """One VMM's socket; as a path it is what connect(2) is given, for which OSError is raised where it is gone."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        """Where it is, or is to be made."""

    @abstractmethod
    def __fspath__(self) -> str:
        """Return what connect(2) is given."""

    @property
    @abstractmethod
    def in_place(self) -> bool:
        """Whether the VMM's own socket is reached by it; without that only a connection that is open already does."""

    @abstractmethod
    def make_way(self, name: str) -> None:
        """Have the path free for the VMM `name`; raises BadRequestError and VmmError where it cannot be."""

    @abstractmethod
    def listening_pid(self) -> int:
        """Return the pid of who listens at it, and know the socket again from now on; raises OSError."""

    @abstractmethod
    def clear(self) -> None:
        """Remove what is left of it after its VMM's end."""

    @abstractmethod
    def remove(self) -> None:
        """Remove what is in its place, of a VMM that is known to be gone."""

    @abstractmethod
    def close(self) -> None:
        """Let go of it."""


class SocketAtPath(ApiSocket):
    """A socket that is found by its path, in a directory where only this user makes any."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file = _socket_at(self.path)
        """What it listens at: a Unix socket is found by its file, and no other at its path is this one."""

    def __fspath__(self) -> str:
        return str(self.path)

    @property
    def in_place(self) -> bool:
        """Whether its socket is where it was."""
        return is_at(self.path, self._file)

    def make_way(self, name: str) -> None:
        """Have the path free of the stale socket of a VMM that died."""
        problem = too_long(self.path)
        if problem:
            raise BadRequestError(f"{name}: {self.path}: {problem}: choose a shorter --run-dir")
        self._file = None
        try:
            mode = self.path.lstat().st_mode
        except FileNotFoundError:
            return
        if not stat.S_ISSOCK(mode):
            raise VmmError(f"{name}: {self.path} is in the way of its API socket: remove it")
        if connect(self.path) == 0:
            raise VmmError(f"{name}: another VMM listens on {self.path}: end it first")
        self.path.unlink(missing_ok=True)

    def listening_pid(self) -> int:
        """Return who listens there."""
        pid = listening_pid(self.path)
        self._file = _socket_at(self.path)
        return pid

    def clear(self) -> None:
        """Remove it where it is the VMM's; its end may have come between its bind(2) and the note of its socket."""
        if self.in_place or is_stale(self.path):
            remove_file(self.path)

    def remove(self) -> None:
        """Whatever it is, but a directory."""
        remove_file(self.path)

    def close(self) -> None:
        """Nothing is held."""


class SocketInJail(ApiSocket):
    """A socket in a directory in which a hostile VMM may put anything in its place: held once it was found."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._held: int | None = None

    def __fspath__(self) -> str:
        if self._held is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self.path))
        # To the socket itself, whatever its directory has by now: unix_find_bsd in net/unix/af_unix.c.
        return f"/proc/self/fd/{self._held}"

    @property
    def in_place(self) -> bool:
        """Whether it was found."""
        return self._held is not None

    def make_way(self, name: str) -> None:
        """A jail is made anew for each start."""

    def listening_pid(self) -> int:
        """Return who listens at the socket that is there; raises OSError for a link and for anything else."""
        if self._held is None:
            held = held_socket(self.path.parent, self.path.name)
            try:
                pid = listening_pid(Path(f"/proc/self/fd/{held}"))
            except OSError:
                os.close(held)
                raise
            self._held = held
            return pid
        return listening_pid(Path(os.fspath(self)))

    def clear(self) -> None:
        """It goes with the jail."""

    remove = clear

    def close(self) -> None:
        """Hold it no longer."""
        held, self._held = self._held, None
        if held is not None:
            with contextlib.suppress(OSError):
                os.close(held)


def _socket_at(path: Path) -> os.stat_result | None:
    status = status_at(path)
    return status if status is not None and stat.S_ISSOCK(status.st_mode) else None
