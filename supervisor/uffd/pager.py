"""The pager: reads what the userfaultfd of one fork has to tell, and answers its faults.

The errors of an answer are the kernel's, and each has one meaning here (UFFDIO_COPY(2const), mm/userfaultfd.c):

- EEXIST: the page is there, somebody was faster. That is success, unless huge pages have run out (installer.py).
- EAGAIN: an event is pending, a range is being removed. It is read first, then the answer is tried again.
- a short copy: the next page says why.
- ENOENT, ESRCH: the memory or its process has gone.
- anything else (EFAULT: the layer was truncated; ENOSPC, ENOMEM: no page to give): the guest waits, it is tried again.
"""

import os
from collections.abc import Iterable, Sequence
from time import monotonic_ns

from supervisor.uffd import kernel
from supervisor.uffd.fault_around import Window, adapted, after_answer, aligned
from supervisor.uffd.handshake import Mapping
from supervisor.uffd.installer import Installer, Region
from supervisor.uffd.kernel import MESSAGE_BYTES, UFFD_EVENT_PAGEFAULT
from supervisor.uffd.memory_image import GRANULE_BYTES, MemoryImage
from supervisor.uffd.page_map import (
    ABSENT,
    COPIED_BYTES,
    COPY_ERRORS,
    DEFERRED_FAULTS,
    FAULT_AROUND,
    FAULT_AROUND_PAGES,
    FAULT_NS,
    FAULTED,
    FAULTS,
    LATENCY,
    LATENCY_BUCKETS,
    OLDEST_UNANSWERED_NS,
    PREFETCH_FINISHED,
    PREFETCHED,
    PREFETCHED_BYTES,
    PREFETCHED_PAGES,
    PRESENT_PAGES,
    RESIDUAL_FAULTS,
    PageMap,
)

_BATCH_MESSAGES = 32
"""What one read takes: a thread waits in one fault at a time, and Firecracker has at most 32 vCPUs."""
_SLICE_NS = 250_000
"""How long one fork's storm may keep the others waiting, but for the answers of its last read."""

GONE_ERRORS = (FileNotFoundError, ProcessLookupError)
"""ENOENT and ESRCH: there is nobody left to serve."""


class Pager:
    """Serves the faults and events of one userfaultfd, one page a fault until `fault_around` says otherwise."""

    def __init__(
        self, uffd: int, mappings: Sequence[Mapping], image: MemoryImage, pages: PageMap, page_size: int
    ) -> None:
        self.deferred: dict[int, int] = {}
        """Faults that could not be answered yet: page -> when it was read, monotonic nanoseconds."""
        self.failure: OSError | None = None
        """Why the last answer failed otherwise than by a rule."""
        self._uffd = uffd
        self._messages = kernel.Messages(uffd, _BATCH_MESSAGES)
        self._installer = Installer(uffd, mappings, image, pages, page_size)
        page_copy = kernel.PageCopy(uffd, GRANULE_BYTES)
        self._at_hand = (
            self._messages.read,
            self._messages.words,
            pages.pages,
            pages.counters,
            page_copy.words,
            page_copy.call,
        )
        self._piece = 0, 0, 0, 0
        self._image = image
        self._map = pages
        self._pages = pages.pages
        self._counters = pages.counters
        self._page_size = page_size
        self.fault_around(1, adaptive=False)

    def fault_around(self, most_pages: int, *, adaptive: bool) -> None:
        """From now on answer a fault with the run of absent pages around it, in a window of at most `most_pages`."""
        self._most_around = most_pages
        self._adaptive = adaptive
        self._window = Window(most_pages)
        self._alone = most_pages <= 1 and self._page_size == GRANULE_BYTES

    def serve(self) -> list[int]:
        """Read messages, apply their removals, answer their faults, for a slice of time; returns the pages asked for.

        Raises one of GONE_ERRORS when the fork has gone, another OSError when its userfaultfd does not work.
        """
        asked: list[int] = []
        read = self._messages.read
        length = read()
        if length is None:
            self._messages.check()
        now = monotonic_ns()
        slice_ends = now + _SLICE_NS
        if not self.deferred:
            self._counters[OLDEST_UNANSWERED_NS] = now
        # Read again at once: a guest that was woken often has its next fault before this process would have slept.
        while length:
            if self._alone:
                length, now = self._answer_alone(length, now, slice_ends, asked)
            if length:
                self._answer_all(length, now, asked)
                now = monotonic_ns()
                length = read() if now < slice_ends else None
        self._note_oldest()
        return asked

    def retry(self) -> None:
        """Try to answer the deferred faults, oldest first; raises as `serve`."""
        for page, read_ns in sorted(self.deferred.items(), key=lambda item: item[1]):
            del self.deferred[page]
            region = next(region for region in self._installer.regions if page < region.end_page)
            if self._install_wanted(region, page, read_ns):
                self._note_answers([monotonic_ns() - read_ns])
        self._note_oldest()

    def populate(self, start: int, end: int) -> None:
        """Install the absent pages of [start, end); raises as `serve`, and the other errors of an answer too."""
        self._installer.install_absent(((start, end),), PREFETCHED)

    def prefetch(self, runs: Iterable[tuple[int, int]]) -> None:
        """Install the absent pages of runs [start, end), and count what came as prefetched; raises as `populate`."""
        counters = self._counters
        present, copied = counters[PRESENT_PAGES], counters[COPIED_BYTES]
        try:
            self._installer.install_absent(runs, PREFETCHED)
        finally:
            counters[PREFETCHED_PAGES] += counters[PRESENT_PAGES] - present
            counters[PREFETCHED_BYTES] += counters[COPIED_BYTES] - copied

    def _apply_events(self, length: int) -> list[int]:
        """Apply what is no fault among the messages read; returns the addresses of the faults.

        A fault that was read with a removal may have been raised after it, and wants zeros then: it is answered later.
        """
        addresses = []
        for event, first, second, _ in kernel.messages(self._messages.data[:length]):
            if event == UFFD_EVENT_PAGEFAULT:
                addresses.append(second)
            elif event in (kernel.UFFD_EVENT_REMOVE, kernel.UFFD_EVENT_UNMAP):
                self._installer.remove(first, second)
            elif event == kernel.UFFD_EVENT_FORK:
                os.close(first & 0xFFFFFFFF)
        return addresses

    def _answer_alone(
        self, length: int | None, read_ns: int, slice_ends: int, asked: list[int]
    ) -> tuple[int | None, int]:
        """Answer a fault, and those read after it, while each is as nearly all are where pages come alone.

        That is: one fault a read, its page of 4 KiB, absent, of a layer, and the kernel with nothing to object. Returns
        the length of a read that is something else, which is left unanswered, or None; and when that was read. It is
        one straight line with everything at hand, because calls would cost Python more than what is to be done.
        """
        read, words, pages, counters, copy_words, copy = self._at_hand
        first, last, shift, source = self._piece
        began_ns, answered = read_ns, 0
        latency, like_it = LATENCY, 0
        while length == MESSAGE_BYTES and words[0] == UFFD_EVENT_PAGEFAULT:
            address = words[2]
            page = (address - shift) // GRANULE_BYTES
            if not first <= page < last:
                first, last, shift, source = self._piece = self._piece_at(address)
                page = (address - shift) // GRANULE_BYTES
            if pages[page] != ABSENT or not source:
                break
            # The kernel tells the page's own address, but for UFFD_FEATURE_EXACT_ADDRESS: a copy to that is EINVAL.
            copy_words[0] = address
            copy_words[1] = address + source
            try:
                copy()
            except OSError:
                break  # the same answer will meet it again, and knows what it means
            pages[page] = FAULTED
            asked.append(page)
            answered += 1
            now = monotonic_ns()
            word = _latency_word(now - read_ns)
            if word != latency:
                counters[latency] += like_it
                latency, like_it = word, 0
            like_it += 1
            read_ns = now  # of the next one, near enough: another look at the clock would cost as much as the read
            length = read() if now < slice_ends else None
        counters[latency] += like_it
        counters[FAULTS] += answered
        counters[FAULT_NS] += read_ns - began_ns
        counters[PRESENT_PAGES] += answered
        counters[COPIED_BYTES] += answered * GRANULE_BYTES
        if counters[PREFETCH_FINISHED]:
            counters[RESIDUAL_FAULTS] += answered
        return length, read_ns

    def _piece_at(self, address: int) -> tuple[int, int, int, int]:
        """The pages around an address of the VMM that come from one place, as (first, last, shift, source).

        An address less `shift` is its offset in the image, plus `source` one of this process; 0: there is no layer.
        """
        region = self._installer.region_of(address)
        layer, start, end = self._image.locate(address - region.shift)
        first = max(start // GRANULE_BYTES, region.first_page)
        last = min(end // GRANULE_BYTES, region.end_page)
        return first, last, region.shift, layer - region.shift if layer else 0

    def _answer_all(self, length: int, read_ns: int, asked: list[int]) -> None:
        """Apply and answer the messages of one read, whatever they are."""
        times: list[int] = []
        try:
            for address in self._apply_events(length):
                region = self._installer.region_of(address)
                page = (address - region.shift) // self._page_size
                asked.append(page)
                if self._install_wanted(region, page, read_ns):
                    times.append(monotonic_ns() - read_ns)
        finally:
            self._note_answers(times)

    def _install_wanted(self, region: Region, page: int, read_ns: int) -> bool:
        """Install the page of a fault and what comes around it; False when that has to be tried again."""
        counters = self._counters
        state = self._pages[page]
        try:
            if state == ABSENT and self._most_around > 1:
                self._install_around(region, page)
            else:
                # Removed, or there already: raised before an answer that has covered it since.
                self._installer.install(region, page, page + 1, FAULTED if state == ABSENT else state)
        except GONE_ERRORS:
            raise
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                counters[COPY_ERRORS] += 1
                self.failure = error
            counters[DEFERRED_FAULTS] += 1
            self.deferred.setdefault(page, read_ns)
            return False
        return True

    def _install_around(self, region: Region, page: int) -> None:
        """Install an absent page and the run of absent pages around it."""
        most, window = self._most_around, self._window
        pages = adapted(window, page, most) if self._adaptive else most
        start, end = self._absent_run(region, page, *aligned(page, pages))
        present = self._counters[PRESENT_PAGES]
        try:
            self._installer.install(region, start, end, FAULT_AROUND)
        except OSError:
            # A neighbour may be what failed, and only the page that was asked for is owed.
            if self._pages[page] == ABSENT:
                self._installer.install(region, page, page + 1, FAULTED)
        if self._pages[page] == FAULT_AROUND:
            self._pages[page] = FAULTED
        if self._adaptive:
            self._window = after_answer(window, pages, start, end)
        self._counters[FAULT_AROUND_PAGES] += max(self._counters[PRESENT_PAGES] - present - 1, 0)

    def _absent_run(self, region: Region, page: int, start: int, end: int) -> tuple[int, int]:
        """The run of absent pages around `page` inside a window and its region."""
        start, end = max(start, region.first_page), min(end, region.end_page)
        states = self._map.states(start, end)
        before, after = states[: page - start], states[page - start :]
        return (
            page - len(before) + len(before.rstrip(b"\0")),
            page + len(after) - len(after.lstrip(b"\0")),
        )

    def _note_answers(self, times: list[int]) -> None:
        """Count answers by how long they took, in nanoseconds."""
        counters = self._counters
        counters[FAULTS] += len(times)
        if counters[PREFETCH_FINISHED]:
            counters[RESIDUAL_FAULTS] += len(times)
        for took in times:
            counters[FAULT_NS] += took
            counters[_latency_word(took)] += 1

    def _note_oldest(self) -> None:
        self._counters[OLDEST_UNANSWERED_NS] = min(self.deferred.values()) if self.deferred else 0


def _latency_word(took_ns: int) -> int:
    """The counter of the answers that took as long as this one."""
    bucket = (took_ns // 1000).bit_length()
    return LATENCY + bucket if bucket < LATENCY_BUCKETS else LATENCY + LATENCY_BUCKETS - 1
