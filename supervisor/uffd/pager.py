"""The pager: puts pages of the memory image into one fork, by the kernel's rules, and notes in the page map how.

Its errors are the kernel's, and each has one meaning here (UFFDIO_COPY(2const), mm/userfaultfd.c):

- EEXIST: the page is there, somebody was faster. That is success.
- EAGAIN: an event is pending, a range is being removed. It is read first, then the answer is tried again.
- a short copy: the next page says why.
- ENOENT, ESRCH: the memory or its process has gone.
- anything else (EFAULT: the layer was truncated; ENOSPC, ENOMEM: no page to give): the guest waits, it is tried again.
"""

import os
from collections.abc import Iterator, Sequence
from time import monotonic_ns

from supervisor.uffd import kernel
from supervisor.uffd.handshake import Mapping
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
    REMOVED,
    REMOVED_PAGES,
    RESIDUAL_FAULTS,
    ZERO,
    ZERO_PAGES,
    PageMap,
)

_BATCH_BYTES = 16 * kernel.MESSAGE_BYTES
"""What one read takes: a bound on how long one fork's storm can keep the others waiting."""

GONE_ERRORS = (FileNotFoundError, ProcessLookupError)
"""ENOENT and ESRCH: there is nobody left to serve."""


class Region:
    """A mapping in pages of the image, and how far the VMM's addresses are from the image's offsets."""

    __slots__ = ("base", "end_address", "end_page", "first_page", "shift")

    def __init__(self, mapping: Mapping, page_size: int) -> None:
        self.base = mapping.base
        self.end_address = mapping.base + mapping.size
        self.first_page = mapping.offset // page_size
        self.end_page = (mapping.offset + mapping.size) // page_size
        self.shift = mapping.base - mapping.offset


class Pager:
    """Serves the faults and events of one userfaultfd."""

    def __init__(
        self,
        uffd: int,
        mappings: Sequence[Mapping],
        image: MemoryImage,
        pages: PageMap,
        page_size: int,
        fault_around_pages: int,
    ) -> None:
        self.fault_around_pages = fault_around_pages
        """Pages of the window; 1 answers every fault with its page alone."""
        self.deferred: dict[int, int] = {}
        """Faults that could not be answered yet: page -> when it was read, monotonic nanoseconds."""
        self.failure: OSError | None = None
        """Why the last answer failed otherwise than by a rule."""
        self._uffd = uffd
        self._regions = [Region(mapping, page_size) for mapping in mappings]
        self._image = image
        self._map = pages
        self._pages = pages.pages
        self._counters = pages.counters
        self._page_size = page_size
        self._composed: tuple[memoryview, int] | None = None

    def serve(self) -> list[int]:
        """Read one batch of messages, apply its removals, answer its faults; returns the pages that were asked for.

        Raises one of GONE_ERRORS when the fork has gone, another OSError when its userfaultfd does not work.
        """
        try:
            batch = os.read(self._uffd, _BATCH_BYTES)
        except BlockingIOError:
            return []  # poll(2) told of a fault that an answer to another one has satisfied since
        now = monotonic_ns()
        faults = []
        # All removals first: a fault read with one may have been raised after it, and wants zeros then.
        for event, first, second, _ in kernel.messages(batch):
            if event == kernel.UFFD_EVENT_PAGEFAULT:
                faults.append(self._place_of(second))
            elif event in (kernel.UFFD_EVENT_REMOVE, kernel.UFFD_EVENT_UNMAP):
                self._remove(first, second)
            elif event == kernel.UFFD_EVENT_FORK:
                os.close(first & 0xFFFFFFFF)
        if faults:
            if not self.deferred:
                self._counters[OLDEST_UNANSWERED_NS] = now
            for region, page in faults:
                self._answer(region, page, now)
            self._note_oldest()
        return [page for _, page in faults]

    def retry(self) -> None:
        """Try to answer the deferred faults, oldest first; raises as `serve`."""
        for page, read_ns in sorted(self.deferred.items(), key=lambda item: item[1]):
            del self.deferred[page]
            region = next(region for region in self._regions if page < region.end_page)
            self._answer(region, page, read_ns)
        self._note_oldest()

    def populate(self, start: int, end: int) -> None:
        """Install the absent pages of [start, end); raises as `serve`, and the other errors of an answer too."""
        for first, last in absent_runs(self._map.states(start, end), start):
            for region in self._regions:
                low, high = max(first, region.first_page), min(last, region.end_page)
                if low < high:
                    self._install(region, low, high, PREFETCHED)

    def prefetch(self, start: int, end: int) -> None:
        """Populate [start, end), and count what came as prefetched."""
        counters = self._counters
        present, copied = counters[PRESENT_PAGES], counters[COPIED_BYTES]
        try:
            self.populate(start, end)
        finally:
            counters[PREFETCHED_PAGES] += counters[PRESENT_PAGES] - present
            counters[PREFETCHED_BYTES] += counters[COPIED_BYTES] - copied

    def _place_of(self, address: int) -> tuple[Region, int]:
        """The region and the page of an address in the VMM."""
        for region in self._regions:
            if region.base <= address < region.end_address:
                return region, (address - region.shift) // self._page_size
        raise OSError(f"it faulted at {address:#x}, which is in none of its mappings")

    def _note_oldest(self) -> None:
        self._counters[OLDEST_UNANSWERED_NS] = min(self.deferred.values()) if self.deferred else 0

    def _answer(self, region: Region, page: int, read_ns: int) -> None:
        counters = self._counters
        try:
            neighbours = self._install_wanted(region, page)
        except GONE_ERRORS:
            raise
        except OSError as error:
            if not isinstance(error, BlockingIOError):
                counters[COPY_ERRORS] += 1
                self.failure = error
            counters[DEFERRED_FAULTS] += 1
            self.deferred.setdefault(page, read_ns)
            return
        took = monotonic_ns() - read_ns
        counters[FAULTS] += 1
        counters[FAULT_NS] += took
        counters[LATENCY + min((took // 1000).bit_length(), LATENCY_BUCKETS - 1)] += 1
        if neighbours:
            counters[FAULT_AROUND_PAGES] += neighbours
        if counters[PREFETCH_FINISHED]:
            counters[RESIDUAL_FAULTS] += 1

    def _install_wanted(self, region: Region, page: int) -> int:
        """Install the page of a fault, and the run of absent pages around it; returns how many came beside it."""
        pages = self._pages
        state = pages[page]
        if state != ABSENT:
            # Removed, or there already: raised before an answer that has covered it since.
            self._install(region, page, page + 1, state)
            return 0
        if self.fault_around_pages <= 1:
            self._install(region, page, page + 1, FAULTED)
            return 0
        present = self._counters[PRESENT_PAGES]
        start, end = self._around(region, page)
        try:
            self._install(region, start, end, FAULT_AROUND)
        except OSError:
            # A neighbour may be what failed, and only the page that was asked for is owed.
            if pages[page] == ABSENT:
                self._install(region, page, page + 1, FAULTED)
        if pages[page] == FAULT_AROUND:
            pages[page] = FAULTED
        return max(self._counters[PRESENT_PAGES] - present - 1, 0)

    def _around(self, region: Region, page: int) -> tuple[int, int]:
        """The run of absent pages around `page` inside its aligned window and region."""
        window = self.fault_around_pages
        start = max(page - page % window, region.first_page)
        end = min(page - page % window + window, region.end_page)
        states = self._map.states(start, end)
        before, after = states[: page - start], states[page - start :]
        return (
            page - len(before) + len(before.rstrip(b"\0")),
            page + len(after) - len(after.lstrip(b"\0")),
        )

    def _install(self, region: Region, start: int, end: int, state: int) -> None:
        """Fill pages [start, end) of one region, which share one state; OSError for the page that stopped it."""
        page_size = self._page_size
        position, stop = start * page_size, end * page_size
        removed = self._pages[start] in (REMOVED, ZERO)
        while position < stop:
            try:
                if removed:
                    filled, arrived = self._zero(region, position, stop), ZERO
                else:
                    filled, arrived = self._fill(region, position, stop, state)
            except FileExistsError:
                self._note_existing(region, position)
                filled = page_size
            else:
                first, last = position // page_size, (position + filled) // page_size
                self._counters[PRESENT_PAGES] += last - first
                self._map.mark(first, last, arrived)
            position += filled

    def _fill(self, region: Region, position: int, stop: int, state: int) -> tuple[int, int]:
        """Install what comes from one place, from `position` on; returns the bytes and the state that they are in."""
        address, end = self._image.locate(position)
        source, length = address + position, min(end, stop) - position
        if self._page_size != GRANULE_BYTES:
            length -= length % self._page_size
            if not length:
                address = source = self._compose(position)
                length = self._page_size
        if not address:
            return self._zero(region, position, position + length), ZERO
        copied = kernel.copy(self._uffd, region.shift + position, source, length)
        self._counters[COPIED_BYTES] += copied
        return copied, state

    def _zero(self, region: Region, position: int, stop: int) -> int:
        if self._page_size == GRANULE_BYTES:
            zeroed = kernel.zeropage(self._uffd, region.shift + position, stop - position)
        else:
            # There is no zero page of a huge size (hugetlbfs: UFFDIO_ZEROPAGE is EINVAL).
            view, address = self._composition()
            view[:] = bytes(self._page_size)
            zeroed = kernel.copy(self._uffd, region.shift + position, address, self._page_size)
        self._counters[ZERO_PAGES] += zeroed // self._page_size
        return zeroed

    def _composition(self) -> tuple[memoryview, int]:
        if self._composed is None:
            memory, address = kernel.anonymous_memory(self._page_size)
            self._composed = memoryview(memory), address
        return self._composed

    def _compose(self, position: int) -> int:
        """The address of a copy of the huge page at `position`, whose parts come from several layers."""
        view, address = self._composition()
        self._image.read_into(view, position)
        return address

    def _note_existing(self, region: Region, position: int) -> None:
        page = position // self._page_size
        if self._pages[page] == ABSENT:
            self._counters[PRESENT_PAGES] += 1
            self._pages[page] = FAULTED
        # A copy that meets a page wakes nobody.
        kernel.wake(self._uffd, region.shift + position, self._page_size)

    def _remove(self, start: int, end: int) -> None:
        """Note that the guest gave back the addresses [start, end): zeros from now on, never the image's again."""
        for region in self._regions:
            low, high = max(start, region.base), min(end, region.end_address)
            if low >= high:
                continue
            first = (low - region.shift) // self._page_size
            last = (high - region.shift) // self._page_size
            states = self._map.states(first, last)
            absent = states.count(ABSENT) + states.count(REMOVED)
            self._counters[PRESENT_PAGES] -= len(states) - absent
            self._counters[REMOVED_PAGES] += len(states)
            self._map.mark(first, last, REMOVED)


def absent_runs(states: bytes, start: int) -> Iterator[tuple[int, int]]:
    """The maximal runs [first, last) of absent pages in the states of pages from `start` on."""
    position = states.find(ABSENT)
    while position >= 0:
        rest = states[position:]
        length = len(rest) - len(rest.lstrip(b"\0"))
        yield start + position, start + position + length
        position = states.find(ABSENT, position + length)
