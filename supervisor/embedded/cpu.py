"""The simulated CPU: a thread that runs a guest and stops at the guest's boundaries when it is told to."""

import threading
from collections.abc import Callable, Iterator

from supervisor.embedded.refusals import FaultError
from supervisor.embedded.walker import GuestEnd


class Cpu:
    """Runs a guest from the first `resume` on; it begins paused.

    `steps` does a piece of the guest's work per item, and the item says how many seconds the guest idles afterwards;
    None: until the CPU is resumed or interrupted. `ended` is told of what ended the thread: the guest, or an error.
    """

    def __init__(self, steps: Iterator[float | None], ended: Callable[[BaseException], None]) -> None:
        self._steps = steps
        self._ended = ended
        self._changed = threading.Condition()
        self._pausing = True
        self._parked = True
        self._interrupted = False
        threading.Thread(target=self._run, name="vcpu 0", daemon=True).start()

    def resume(self) -> None:
        """Let the guest go on."""
        with self._changed:
            self._pausing = False
            self._changed.notify_all()

    def interrupt(self) -> None:
        """End the guest's idling, now or, if it is paused or busy, the next one: a device has something to tell."""
        with self._changed:
            self._interrupted = True
            self._changed.notify_all()

    def pause(self, timeout: float) -> None:
        """Stop the guest at its next boundary; raises FaultError where that takes `timeout` seconds, and it goes on."""
        with self._changed:
            self._pausing = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._parked, timeout):
                self._pausing = False
                raise FaultError(
                    f"Pause error: the CPU reached no page boundary in {timeout:g} s: it waits for its page server, to "
                    "send a page or to read that pages were given back, or for its console to be read; "
                    "try again when that has been done"
                )

    def _run(self) -> None:
        try:
            self._park(0.0)
            for idle in self._steps:
                self._park(idle)
        except GuestEnd as end:
            self._ended(end)
        except BaseException as error:
            self._ended(error)
            raise

    def _park(self, idle: float | None) -> None:
        with self._changed:
            if idle != 0.0:
                self._changed.wait_for(lambda: self._pausing or self._interrupted, idle)
            while self._pausing:
                self._parked = True
                self._changed.notify_all()
                self._changed.wait()
            self._parked = self._interrupted = False
