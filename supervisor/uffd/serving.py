"""A fork after its handshake: its faults are answered, it is recorded or prefetched, and perhaps populated."""

import contextlib
import errno
import os
from collections.abc import Callable
from functools import partial

from supervisor.errors import PageServerError
from supervisor.uffd import kernel, page_map
from supervisor.uffd.control import Attached, Failing
from supervisor.uffd.handshake import Handshake
from supervisor.uffd.memory_image import GRANULE_BYTES
from supervisor.uffd.page_map import PageMap
from supervisor.uffd.pager import GONE_ERRORS, Pager
from supervisor.uffd.population import Population, Tell
from supervisor.uffd.prefetching import Prefetching
from supervisor.uffd.recorder import Recorder
from supervisor.uffd.sampling import HeldBack, Plan
from supervisor.uffd.terms import Owner, Terms

NOTHING_PREFETCHED = Attached(0, 0, 0.0)

_RETRY_SECONDS = 0.001
_RETRY_LIMIT_SECONDS = 0.1


class Serving:
    """Serves one userfaultfd, which is its own; every callback of it is called by the loop and none blocks."""

    def __init__(
        self, owner: Owner, terms: Terms, handshake: Handshake, pages: PageMap, on_failure: Callable[[str], None]
    ) -> None:
        """Begin to answer faults; calls with the reason when that cannot go on."""
        self._owner = owner
        self._terms = terms
        self._handshake = handshake
        self._map = pages
        self._on_failure = on_failure
        self._closed = False
        self._pager = Pager(handshake.uffd, handshake.mappings, owner.image, pages, owner.page_size)
        self._retry_seconds = _RETRY_SECONDS
        self._retrying = False
        self._failures: set[int | None] = set()
        self._recorder: Recorder | None = None
        self._prefetching: Prefetching | None = None
        self._held_back: HeldBack | None = None
        self._population: Population | None = None
        if terms.record:
            self._recorder = Recorder(owner, terms.fork_id, self._end_recording)
        else:
            self._fault_around()
        owner.loop.watch(handshake.uffd, self._on_faults)

    @property
    def recording(self) -> bool:
        """Whether its faults are being recorded."""
        return self._recorder is not None

    def wake(self) -> None:
        """Have raised again what a dead page server had read and not answered (UFFDIO_WAKE(2const))."""
        for mapping in self._handshake.mappings:
            with contextlib.suppress(OSError):
                kernel.wake(self._handshake.uffd, mapping.base, mapping.size)

    def close(self) -> None:
        """Stop serving: keep a recording that was not cut off, and close the userfaultfd."""
        self._closed = True
        self._end_recording()
        if self._map.counters[page_map.FAULTS]:
            # Else it may never have run: it was undone after its prefetch.
            self._judge_sample()
        self._held_back = None
        if self._prefetching is not None:
            self._prefetching.stop()
        if self._population is not None:
            self._population.stop()
        self._owner.loop.unwatch(self._handshake.uffd)
        os.close(self._handshake.uffd)

    # Faults

    def _fault_around(self) -> None:
        """Have faults answered by the policy, whose pages are of 4 KiB whatever the image's are."""
        policy = self._owner.policy
        pages = policy.fault_around_pages * GRANULE_BYTES // self._owner.page_size or 1
        self._pager.fault_around(pages, adaptive=policy.fault_around == "adaptive")

    def _on_faults(self) -> None:
        try:
            pages = self._pager.serve()
        except OSError as error:
            self._on_failure(_reason(error))
            return
        if pages and self._recorder is not None:
            self._recorder.touch(pages)
        if self._held_back is not None:
            self._held_back.ask(pages)
        if self._pager.deferred or self._failures:
            self._retry_deferred()

    def _retry_deferred(self) -> None:
        failure, self._pager.failure = self._pager.failure, None
        if failure is not None and failure.errno not in self._failures:
            self._failures.add(failure.errno)
            reason = f"a page cannot be provided: {self._why(failure)}"
            self._owner.announce(Failing(self._terms.fork_id, reason))
        if not self._pager.deferred:
            self._retry_seconds = _RETRY_SECONDS
            self._failures.clear()
        elif not self._retrying:
            # No event of the userfaultfd announces that an answer would succeed now: only time does.
            self._retrying = True
            self._owner.loop.call_later(self._retry_seconds, self._retry)
            self._retry_seconds = min(2 * self._retry_seconds, _RETRY_LIMIT_SECONDS)

    def _why(self, failure: OSError) -> str:
        if failure.errno == errno.EFAULT:
            try:
                self._owner.image.verify()
            except PageServerError as error:
                return error.message
        return failure.strerror or str(failure)

    def _retry(self) -> None:
        self._retrying = False
        if self._closed:
            return
        try:
            self._pager.retry()
        except OSError as error:
            self._on_failure(_reason(error))
            return
        self._retry_deferred()

    # Recording, population and prefetch

    def _end_recording(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            self._fault_around()
            recorder.keep()

    def populate(self, on_end: Tell) -> None:
        """Have every absent page filled and then none reported any more; calls at the end, unless it is closed before.

        What is being done already is not begun again. The fork is served on: what was raised before the end is still to
        be read, and a VMM that gives pages back waits for that.
        """
        if self._population is not None and not self._population.ended:
            return
        self._end_recording()
        # What is populated is asked for no more, wanted or not.
        self._judge_sample()
        loop, page_size = self._owner.loop, self._owner.page_size
        self._population = Population(loop, self._handshake, self._pager, self._map, page_size, on_end)

    def stop_populating(self) -> None:
        """Leave what is absent to the faults again."""
        if self._population is not None:
            self._population.stop()

    def prefetch(self, on_attached: Callable[[Attached], None]) -> None:
        """Prefetch what is planned for a new fork; calls with what it was given once it may run."""
        # What is prefetched does not fault, and would be missing in the recording.
        wanted = self._terms.prefetch != "off" and not self._terms.record
        plan = self._owner.plan(self._terms.fork_id, self._handshake.mappings) if wanted else Plan()
        if not plan.runs or self._terms.prefetch == "concurrent":
            on_attached(NOTHING_PREFETCHED)
        if not plan.runs:
            return
        if plan.held_back:
            self._held_back = HeldBack(plan.held_back)
        on_end = partial(self._prefetched, on_attached)
        loop, page_size = self._owner.loop, self._owner.page_size
        self._prefetching = Prefetching(loop, self._pager, self._map, plan.runs, page_size, on_end)

    def _prefetched(self, on_attached: Callable[[Attached], None]) -> None:
        if self._held_back is not None:
            self._owner.loop.call_later(self._owner.policy.sample_seconds, self._judge_sample)
        if self._terms.prefetch == "before_resume":
            counters = self._map.counters
            pages, length = counters[page_map.PREFETCHED_PAGES], counters[page_map.PREFETCHED_BYTES]
            on_attached(Attached(pages, length, counters[page_map.PREFETCH_NS] / 1e9))

    def _judge_sample(self) -> None:
        held_back, self._held_back = self._held_back, None
        if held_back is not None and self._map.counters[page_map.PREFETCH_FINISHED]:
            self._owner.keep_sample(*held_back.judge(self._map.pages))


def _reason(error: OSError) -> str:
    if isinstance(error, GONE_ERRORS):
        return f"its memory has gone: {error.strerror}"
    return f"its userfaultfd cannot be served: {error.strerror or error}"
