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
"""From the signal to the end of the process, whatever hangs: a VMM, a disk, a thread, the log, the event loop."""
LOG_SECONDS: Final = 0.2
"""For the log's last line: whoever holds it up may be what hangs."""

_log = logging.getLogger(__name__)


class Ending:
    """Hears the signals; made in the main thread, in a running event loop.

    Not by the loop's own handlers, which a loop that is held up never comes to. What is left half done is left as by a
    supervisor that was killed: the next one finishes or undoes it.
    """

    def __init__(self) -> None:
        self._asked = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        # A pipe, since a handler may come in the middle of anything, and takes no lock.
        heard, self._hear = os.pipe2(os.O_CLOEXEC)
        threading.Thread(target=self._end_in_time, args=(heard,), daemon=True).start()
        for number in SIGNALS:
            signal.signal(number, self._on_signal)

    async def asked(self) -> None:
        """Return when somebody has asked for the end."""
        await self._asked.wait()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        os.write(self._hear, b"!")

    def _end_in_time(self, heard: int) -> None:
        os.read(heard, 1)
        self._loop.call_soon_threadsafe(self._asked.set)
        # The loop, and the threads that it waits for, have ended by then.
        threading.main_thread().join(ENDING_SECONDS)
        if not threading.main_thread().is_alive():
            return
        told = "not everything has ended %.1f s after the signal; the next supervisor sees to the rest"
        last = threading.Thread(target=_log.warning, args=(told, ENDING_SECONDS), daemon=True)
        last.start()
        last.join(LOG_SECONDS)
        os._exit(0)
