"""The recording of one fork that is served: its faults are noted until a bound of the policy is reached."""

import time
from collections.abc import Callable

from supervisor.uffd.control import RecordingDropped
from supervisor.uffd.hot_pages import Recording
from supervisor.uffd.terms import Owner


class Recorder:
    """Notes what one fork touches first; `on_end` is called at a bound, and `keep` ends it, then or before."""

    def __init__(self, owner: Owner, fork_id: str, on_end: Callable[[], None]) -> None:
        policy = owner.policy
        longest_ns, quiet_ns = int(policy.record_seconds * 1e9), int(policy.record_quiet_seconds * 1e9)
        self._recording = Recording(longest_ns, quiet_ns, policy.record_pages)
        self._owner = owner
        self._fork_id = fork_id
        self._on_end = on_end
        self._kept = False

    def touch(self, pages: list[int]) -> None:
        """Note faults, of which there is at least one."""
        first = not self._recording.touched
        self._recording.touch(pages, time.monotonic_ns())
        if first or self._recording.full:
            self._check()

    def keep(self) -> None:
        """Add it to the hot-page list, or drop it where it was cut off; one without a fault is neither."""
        self._kept = True
        touched = self._recording.touched
        if touched and self._recording.cut_off(time.monotonic_ns()):
            self._owner.announce(RecordingDropped(self._fork_id, len(touched)))
        elif touched:
            self._owner.keep_recording(self._fork_id, touched)

    def _check(self) -> None:
        ends_ns = self._recording.ends_at_ns()
        if self._kept or ends_ns is None:
            return
        if ends_ns <= time.monotonic_ns():
            self._on_end()
        else:
            self._owner.loop.call_at(ends_ns, self._check)
