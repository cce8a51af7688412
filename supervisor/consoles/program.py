"""The console holder's process, started."""

import os
import socket
import sys
from pathlib import Path

from supervisor.system.followed_process import FollowedProcess, exit_code
from supervisor.system.isolated_python import isolated_command
from supervisor.system.oom_score import serve_on

MODULE = "supervisor.consoles.holder"

HolderProcess = FollowedProcess[int | None]
"""Its outcome is the exit code, negative for a signal; None for one that an earlier supervisor had spawned."""


def spawn(data_dir: Path, control: Path) -> tuple[HolderProcess, socket.socket]:
    """Start a holder in a session of its own; returns it with a connection, which it may be told by at once.

    Raises OSError.
    """
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with its:
            pid = os.posix_spawn(
                sys.executable,
                [
                    *isolated_command(f"from {MODULE} import main; sys.exit(main())"),
                    str(data_dir.absolute()),
                    str(control.absolute()),
                ],
                os.environ,
                file_actions=[
                    (os.POSIX_SPAWN_DUP2, its.fileno(), 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                ],
                setsid=True,
            )
        serve_on(pid)
        return HolderProcess.child(pid, exit_code), ours
    except OSError:
        ours.close()
        raise


def find(pid: int, start_time: int) -> HolderProcess | None:
    """Follow a holder that runs already; None where it has ended. Raises OSError without a descriptor."""
    process = HolderProcess.found(pid, start_time, exit_code)
    if process is not None:
        serve_on(pid)
    return process
