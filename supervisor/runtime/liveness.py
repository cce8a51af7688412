"""Whether a process that does not answer is to be replaced."""

import time
from typing import Final

import psutil

STOPPED_BOUND: Final = 1.0
"""Seconds without an answer after which a process that is stopped (SIGSTOP, a debugger) is replaced."""
HANGING_BOUND: Final = 5.0
"""Seconds without an answer after which any process is replaced; a loaded host may take some of them."""


class Liveness:
    """How long a process has left questions unanswered, each of which was given STOPPED_BOUND."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._since: float | None = None
        self.silent_seconds = 0.0

    def answered(self) -> None:
        """It has answered."""
        self._since = None

    def unanswered(self) -> bool:
        """It has not answered; return whether it has been silent for too long."""
        now = time.monotonic()
        if self._since is None:
            self._since = now - STOPPED_BOUND
        self.silent_seconds = now - self._since
        return self.silent_seconds >= HANGING_BOUND or self._is_stopped()

    def _is_stopped(self) -> bool:
        try:
            return psutil.Process(self._pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        except psutil.Error:
            return False
