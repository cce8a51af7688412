"""Whether a process that does not answer is to be replaced."""

import time
from typing import Final

import psutil

from supervisor.system.processes import cpu_wait_seconds

STOPPED_BOUND: Final = 1.0
"""Seconds without an answer after which a process that is stopped (SIGSTOP, a debugger) is replaced."""
HANGING_BOUND: Final = 5.0
"""Seconds without an answer after which any process is replaced, but those in which it waited for a CPU."""
STARTING_BOUND: Final = 60.0
"""Seconds for its first answer: an interpreter takes many to start on a host that is slow, and so would the next."""


class Liveness:
    """How long a process has left questions unanswered, each of which was given STOPPED_BOUND."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._bound = STARTING_BOUND
        self._waited = 0.0
        self._since: float | None = None
        self.silent_seconds = 0.0

    def answered(self) -> None:
        """It has answered."""
        self._since = None
        self._bound = HANGING_BOUND

    def unanswered(self) -> bool:
        """It has not answered; return whether it has been silent for too long."""
        now, waited = time.monotonic(), cpu_wait_seconds(self._pid)
        if self._since is None:
            self._since, self._waited = now - STOPPED_BOUND, waited
        self.silent_seconds = now - self._since
        return self.silent_seconds - (waited - self._waited) >= self._bound or self._is_stopped()

    def _is_stopped(self) -> bool:
        try:
            return psutil.Process(self._pid).status() in (psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP)
        except psutil.Error:
            return False
