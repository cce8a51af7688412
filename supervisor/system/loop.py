"""An event loop: descriptors first, then timers, and idle work only while neither wants anything."""

import select
import time
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count


class Timer:
    """One call in the future; `cancel` makes it none."""

    def __init__(self, call: Callable[[], None]) -> None:
        self._call: Callable[[], None] | None = call

    @property
    def cancelled(self) -> bool:
        """Whether it will not call any more."""
        return self._call is None

    def cancel(self) -> None:
        """Do not call."""
        self._call = None

    def fire(self) -> None:
        """Call, unless it was cancelled."""
        if self._call is not None:
            self._call()


class Loop:
    """A single-threaded loop around one epoll."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[int, int, Timer]] = []
        self._idle: deque[Callable[[], bool]] = deque()
        self._order = count()
        self._stopping = False

    def watch(self, fd: int, on_ready: Callable[[], None], events: int = select.EPOLLIN) -> None:
        """Call `on_ready` whenever the descriptor is ready or has failed; it must not block.

        Raises OSError where the kernel has no room for one more (fs.epoll.max_user_watches in epoll(7)).
        """
        self._epoll.register(fd, events)
        self._readers[fd] = on_ready

    def want(self, fd: int, events: int) -> None:
        """Change what a watched descriptor is watched for."""
        self._epoll.modify(fd, events)

    def unwatch(self, fd: int) -> None:
        """Watch it no longer; before it is closed."""
        if self._readers.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def call_at(self, when_ns: int, call: Callable[[], None]) -> Timer:
        """Call once, not before `when_ns` of the monotonic clock."""
        timer = Timer(call)
        heappush(self._timers, (when_ns, next(self._order), timer))
        return timer

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        """Call once, when at least so many seconds have passed."""
        return self.call_at(time.monotonic_ns() + int(seconds * 1e9), call)

    def add_idle(self, work: Callable[[], bool]) -> None:
        """Call `work` when nothing else is to be done, in turn with other idle work, until it returns False."""
        self._idle.append(work)

    def stop(self) -> None:
        """Have `run` return when the present callbacks are done."""
        self._stopping = True

    def run(self) -> None:
        """Run until `stop`."""
        while not self._stopping:
            ready = self._epoll.poll(self._timeout())
            for fd, on_ready in [(fd, self._readers.get(fd)) for fd, _ in ready]:
                # A callback before this one may have unwatched it, and another file have its number.
                if on_ready is not None and self._readers.get(fd) is on_ready:
                    on_ready()
            if self._timers:
                self._fire_timers()
            if not ready and self._idle:
                work = self._idle.popleft()
                if work():
                    self._idle.append(work)

    def _timeout(self) -> float:
        """Seconds that epoll may wait; -1 is for ever, and costs no timer of the kernel's."""
        if self._idle or self._stopping:
            return 0
        while self._timers and self._timers[0][2].cancelled:
            heappop(self._timers)
        if not self._timers:
            return -1
        return max(self._timers[0][0] - time.monotonic_ns(), 0) / 1e9

    def _fire_timers(self) -> None:
        now = time.monotonic_ns()
        while self._timers and self._timers[0][0] <= now:
            heappop(self._timers)[2].fire()

    def close(self) -> None:
        """Close the epoll; what it watched stays open."""
        self._epoll.close()
