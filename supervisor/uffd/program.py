"""The page server's process: started, and known again."""

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Final, NamedTuple

from supervisor.errors import STORAGE_ERRNOS, PageServerError
from supervisor.system.isolated_python import isolated_command
from supervisor.uffd.handshake import peer_pid

_CONNECT_SECONDS: Final = 1.0
"""A connection waits where the queue of a listener that accepts nobody is full."""


class Started(NamedTuple):
    """A process, by its pid with the time of its start (clock ticks since boot), and by a pidfd."""

    pid: int
    start_time: int
    pidfd: int


def start(configuration: str, ready: int, log: Path) -> Started:
    """Start the program; its stdout is the pipe `ready`, its stderr the log. Raises OSError."""
    stderr = _open_log(log)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [*isolated_command("from supervisor.uffd.page_server import main; sys.exit(main())"), configuration],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, ready, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
            ],
            setsid=True,
        )
    finally:
        os.close(stderr)
    try:
        return Started(pid, _start_time(pid), os.pidfd_open(pid))
    except OSError:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise


def _open_log(log: Path) -> int:
    """Open the log to append to it; guests are served without one where the file system takes none."""
    try:
        return os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in STORAGE_ERRNOS:
            raise
        return os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)


def listener_at(path: Path) -> tuple[int, int] | None:
    """Return the pid and the start time of the process that listens on a socket, or None. Blocks."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_CONNECT_SECONDS)
        try:
            connection.connect(os.fspath(path))
            # Of a listener they are those of whoever called listen(2): unix(7).
            pid = peer_pid(connection)
            return pid, start_time_of(pid)
        except (OSError, PageServerError):
            return None


def start_time_of(pid: int) -> int:
    """When the process started, in clock ticks since boot (field 22 of /proc/pid/stat); PageServerError without it."""
    try:
        return _start_time(pid)
    except OSError as error:
        raise PageServerError(f"page server pid {pid} is not alive: {error.strerror}") from error


def _start_time(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_text()
    # The second field is the program's name in parentheses, and may hold anything.
    return int(stat.rpartition(")")[2].split()[19])
