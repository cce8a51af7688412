"""The end of a fork's need for its page server: every page that is absent comes, then the kernel reports no more.

In that order: a page that is absent when its range is unregistered reads as zero (UFFDIO_UNREGISTER(2const)). A removed
page is to be zero, and stays as it is.
"""

from collections.abc import Callable

from supervisor.errors import PageServerError
from supervisor.system.loop import Loop
from supervisor.uffd import kernel
from supervisor.uffd.handshake import Handshake
from supervisor.uffd.page_map import ABSENT, PageMap
from supervisor.uffd.pager import Pager
from supervisor.uffd.prefetching import SLICE_BYTES

_RETRY_SECONDS = 0.001
_LOOK_PAGES = 1 << 16
"""How much of the page map is looked through at once."""

Tell = Callable[[str | None], None]
"""Hears once how it ended: None where every page is there and none is reported any more, or why that is not so."""


class Population:
    """Fills one fork a slice at a time, in address order, while no fault of any fork waits; then has it unregistered.

    Left half-way it is harmless: what is there is there, and a range may be unregistered again.
    """

    def __init__(
        self, loop: Loop, handshake: Handshake, pager: Pager, pages: PageMap, page_size: int, on_end: Tell
    ) -> None:
        self.ended = False
        self._loop = loop
        self._handshake = handshake
        self._pager = pager
        self._map = pages
        self._slice_pages = max(SLICE_BYTES // page_size, 1)
        self._on_end = on_end
        self._position = 0
        loop.add_idle(self._work)

    def stop(self) -> None:
        """Do no more of it, and tell nobody."""
        self.ended = True

    def _end(self, answer: str | None) -> None:
        self.ended = True
        self._on_end(answer)

    def _work(self) -> bool:
        """Idle work: one slice; False when it has no more to do now."""
        if self.ended:
            return False
        try:
            if self._fill_slice():
                return True
            self._leave()
        except BlockingIOError:
            self._loop.call_later(_RETRY_SECONDS, lambda: self._loop.add_idle(self._work))
        except (OSError, PageServerError) as error:
            reason = error.message if isinstance(error, PageServerError) else error.strerror
            self._end(f"it cannot be populated: {reason}")
        else:
            self._end(None)
        return False

    def _fill_slice(self) -> bool:
        """Install the next absent pages; False when there are none."""
        start = self._next_absent()
        if start is None:
            return False
        end = min(start + self._slice_pages, self._map.page_count)
        self._pager.populate(start, end)
        self._position = end
        return True

    def _next_absent(self) -> int | None:
        for start in range(self._position, self._map.page_count, _LOOK_PAGES):
            found = self._map.states(start, min(start + _LOOK_PAGES, self._map.page_count)).find(ABSENT)
            if found >= 0:
                return start + found
        return None

    def _leave(self) -> None:
        if self._pager.deferred:
            # A fault of a page that has come since waits for nothing but its retry.
            self._pager.retry()
            if self._pager.deferred and self._pager.failure is None:
                raise BlockingIOError
        absent = self._map.states(0, self._map.page_count).count(ABSENT)
        if absent or self._pager.deferred:
            raise PageServerError(f"{absent} pages are absent and {len(self._pager.deferred)} faults unanswered")
        for mapping in self._handshake.mappings:
            kernel.unregister(self._handshake.uffd, mapping.base, mapping.size)
