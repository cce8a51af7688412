"""What a VMM waits for: SIGTERM or SIGINT, its guest's end, or one of its threads that cannot go on."""

import os
import signal
from typing import Final

_FAILED: Final = 0
_FINISHED: Final = 255
"""No signals have these numbers."""


class Ending:
    """Made and waited for in the main thread.

    By a pipe, into which the interpreter itself writes a signal's number at once (signal.set_wakeup_fd): a thread that
    is about to wait for a lock sleeps through a signal that comes just before it, and no handler of Python's is run.
    """

    def __init__(self) -> None:
        self._reader, self._writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: None)

    def fail(self) -> None:
        """End it for a failure; any thread may."""
        os.write(self._writer, bytes([_FAILED]))

    def finish(self) -> None:
        """End it because its guest has ended; any thread may."""
        os.write(self._writer, bytes([_FINISHED]))

    def wait(self) -> bool:
        """Wait for the end; return whether it was asked for, by a signal or by the guest, and is no failure."""
        return os.read(self._reader, 1)[0] != _FAILED
