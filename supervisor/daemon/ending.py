"""How a supervisor ends that is asked to: in order, or at once where something keeps it from that for too long."""

import asyncio
import logging
import os
import signal
import threading
from types import FrameType
from typing import Final

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
ENDING_SECONDS: Final = 4.5
"""From the signal to the end of the process, whatever hangs: a VMM, a disk, a thread, the event loop."""

_log = logging.getLogger(__name__)


class Ending:
    """Hears the signals; made in the main thread, in a running event loop.

    Not by the loop's own handlers, which a loop that is held up never comes to. What is left half done is left as by a
    supervisor that was killed: the next one finishes or undoes it.
    """

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._timer: threading.Timer | None = None
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    async def asked(self) -> None:
        """Return when somebody has asked for the end."""
        await self._asked.wait()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._timer is None:
            self._timer = threading.Timer(ENDING_SECONDS, _end_at_once)
            self._timer.daemon = True
            self._timer.start()
            self._loop.call_soon_threadsafe(self._asked.set)


def _end_at_once() -> None:
    _log.warning(
        "not everything has ended %.1f s after the signal; the next supervisor sees to the rest", ENDING_SECONDS
    )
    os._exit(0)
