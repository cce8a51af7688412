"""The VMM's log: lines in Firecracker's form, in a file or on stderr."""

import os
import threading
import time
from typing import Final, NamedTuple

from supervisor.system.log_text import one_line

LEVELS: Final = {"off": 0, "error": 1, "warn": 2, "warning": 2, "info": 3, "debug": 4, "trace": 5}


class Log(NamedTuple):
    """Where lines go, and up to which of LEVELS."""

    fd: int
    instance_id: str
    level: int
    show_level: bool = False

    def error(self, message: str) -> None:
        """Say what failed."""
        self._write("error", message)

    def info(self, message: str) -> None:
        """Say what happened."""
        self._write("info", message)

    def _write(self, level: str, message: str) -> None:
        if LEVELS[level] > self.level:
            return
        shown = f":{level.upper()}" if self.show_level else ""
        now = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(now // 10**9))
        line = f"{stamp}.{now % 10**9:09} [{self.instance_id}:{threading.current_thread().name}{shown}] {message}"
        try:
            os.write(self.fd, f"{one_line(line)}\n".encode())
        except OSError:
            # A log that cannot be written stops no VM.
            return


def open_log(path: str | None, instance_id: str, level: int, show_level: bool = False) -> Log:
    """Return the log; raises OSError. Opening does not wait for the reader of a fifo."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
    return Log(2 if path is None else os.open(path, flags, 0o644), instance_id, level, show_level)
