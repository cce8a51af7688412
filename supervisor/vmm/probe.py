"""What a program prints: of one that may print for ever, never end, or leave others behind."""

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from supervisor.system.oom_score import give_way

OUTPUT_BYTES: Final = 1 << 16
"""More than is read of any."""


class Printed(NamedTuple):
    """How a program ended, negative for a signal, and what it has printed."""

    code: int
    output: bytes


def run(command: Sequence[str | os.PathLike[str]], seconds: float) -> Printed:
    """Run a program to its end, and end what it leaves in its session; it blocks.

    Raises OSError where it cannot be started, and TimeoutError where it has not ended, or not stopped to print.
    """
    program = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
    )
    give_way(program.pid)
    pidfd = None
    with program:
        try:
            pidfd = os.pidfd_open(program.pid)
            assert program.stdout is not None
            output = _read(program.stdout.fileno(), pidfd, time.monotonic() + seconds)
        finally:
            # Before it is reaped: until then the number is no other's.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(program.pid, signal.SIGKILL)
            if pidfd is not None:
                os.close(pidfd)
    return Printed(program.returncode, output)


def _read(pipe: int, pidfd: int, deadline: float) -> bytes:
    """Return what comes through a pipe until a process has ended."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(pipe, select.POLLIN)
    output = bytearray()
    while (remaining := deadline - time.monotonic()) > 0:
        ready = {fd for fd, _ in poll.poll(remaining * 1e3)}
        if pipe in ready:
            piece = os.read(pipe, OUTPUT_BYTES)
            output += piece
            if len(output) > OUTPUT_BYTES:
                break
            if not piece:
                poll.unregister(pipe)
        # Not before the pipe was found empty: its end and what it printed may be seen at once.
        elif pidfd in ready:
            return bytes(output)
    raise TimeoutError
