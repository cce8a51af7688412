"""A supervisor of one's own: started where none listens, and stopped when its user goes; its VMs go on."""

import contextlib
import errno
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from supervisor.settings import SUPERVISOR_OPTIONS, Settings

READY_TIMEOUT: Final = 30.0
"""Seconds for a supervisor to start, adoption of running VMs included."""
STOP_TIMEOUT: Final = 90.0
"""Seconds for a supervisor to end after SIGTERM; it lets verbs in progress go on for 60."""


class NotStartedError(Exception):
    """The private supervisor did not come up; the message is its own last line."""


def listens(path: Path) -> bool:
    """Return whether somebody listens on a socket; also where this user may not open it, or too many others do."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as probe:
        return probe.connect_ex(os.fspath(path)) not in (errno.ENOENT, errno.ECONNREFUSED)


@contextlib.contextmanager
def private_supervisor(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run a supervisor with `settings` while the context lasts; it answers on `settings.socket_path`.

    Raises NotStartedError with the supervisor's own words where it does not come up.
    """
    with tempfile.TemporaryFile() as complaints:
        # A session of its own: a Ctrl-C in this terminal reaches the supervisor by the exit of this context only.
        process = subprocess.Popen(
            (sys.executable, "-P", "-m", "supervisor", *_arguments(settings)),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=complaints,
            start_new_session=True,
        )
        try:
            _await_ready(process, complaints)
            yield process
        finally:
            _stop(process)


def _arguments(settings: Settings) -> list[str]:
    values = {name: getattr(settings, name) for name in SUPERVISOR_OPTIONS}
    return [f"--{name.replace('_', '-')}={value}" for name, value in values.items() if value is not None]


def _await_ready(process: subprocess.Popen[bytes], complaints: IO[bytes]) -> None:
    """Wait for the line `ready <socket>`; standard output that ends without it says that the supervisor failed."""
    assert process.stdout is not None
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    deadline = time.monotonic() + READY_TIMEOUT
    said = b""
    while b"\n" not in said:
        left = deadline - time.monotonic()
        if left <= 0 or not poll.poll(left * 1000):
            raise NotStartedError(f"the supervisor (pid {process.pid}) was not ready after {READY_TIMEOUT:.0f} s")
        chunk = os.read(process.stdout.fileno(), 4096)
        if not chunk:
            raise NotStartedError(_last_words(process, complaints))
        said += chunk


def _last_words(process: subprocess.Popen[bytes], complaints: IO[bytes]) -> str:
    code = process.wait()
    complaints.seek(0)
    lines = complaints.read().decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("forktui-supervisor: ") if lines else f"the supervisor ended with exit code {code}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End the supervisor and reap it; SIGKILL where it does not end by itself, which stops no VM either."""
    with process:
        process.send_signal(signal.SIGTERM)
        # One that is stopped has to go on to end.
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
