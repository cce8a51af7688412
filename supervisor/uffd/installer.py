"""The installer: puts pages of the memory image into one fork, by the kernel's rules, and notes in the page map how.

A page is noted after it was installed and never before: what the map of a dead page server says to be there and the
VMM's memory does not have counts as removed by the guest (takeover.py), and would be zero from then on.
"""

from collections.abc import Iterable, Iterator, Sequence

from supervisor.uffd import kernel
from supervisor.uffd.handshake import Mapping
from supervisor.uffd.huge_pages import check_not_empty
from supervisor.uffd.memory_image import GRANULE_BYTES, MemoryImage
from supervisor.uffd.page_map import (
    ABSENT,
    COPIED_BYTES,
    FAULTED,
    PRESENT_PAGES,
    REMOVED,
    REMOVED_PAGES,
    ZERO,
    ZERO_PAGES,
    PageMap,
)


class Region:
    """A mapping in pages of the image, and how far the VMM's addresses are from the image's offsets."""

    __slots__ = ("base", "end_address", "end_page", "first_page", "shift")

    def __init__(self, mapping: Mapping, page_size: int) -> None:
        self.base = mapping.base
        self.end_address = mapping.base + mapping.size
        self.first_page = mapping.offset // page_size
        self.end_page = (mapping.offset + mapping.size) // page_size
        self.shift = mapping.base - mapping.offset


class Installer:
    """Fills the memory behind one userfaultfd."""

    def __init__(
        self, uffd: int, mappings: Sequence[Mapping], image: MemoryImage, pages: PageMap, page_size: int
    ) -> None:
        self.regions = tuple(Region(mapping, page_size) for mapping in mappings)
        self._uffd = uffd
        self._image = image
        self._map = pages
        self._pages = pages.pages
        self._counters = pages.counters
        self._page_size = page_size
        self._composed: tuple[memoryview, int] | None = None

    def region_of(self, address: int) -> Region:
        """The region of an address in the VMM; OSError when it is in none."""
        for region in self.regions:
            if region.base <= address < region.end_address:
                return region
        raise OSError(f"it faulted at {address:#x}, which is in none of its mappings")

    def install(self, region: Region, start: int, end: int, state: int) -> None:
        """Fill pages [start, end) of one region, which share one state; OSError for the page that stopped it."""
        page_size, counters = self._page_size, self._counters
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
                first = position // page_size
                pages = filled // page_size
                self._map.mark(first, first + pages, arrived)
                counters[PRESENT_PAGES] += pages
            position += filled

    def install_absent(self, runs: Iterable[tuple[int, int]], state: int) -> None:
        """Fill the absent pages of runs [start, end), which may span regions; raises as `install`."""
        # What the guest gave back is never the image's again, and only the page map tells it from what was never there.
        nothing_removed = not self._counters[REMOVED_PAGES]
        for start, end in runs:
            if nothing_removed and self._copy_run(start, end, state):
                continue
            for first, last in absent_runs(self._map.states(start, end), start):
                for region in self.regions:
                    low, high = max(first, region.first_page), min(last, region.end_page)
                    if low < high:
                        self.install(region, low, high, state)

    def _copy_run(self, start: int, end: int, state: int) -> bool:
        """Fill a run by one copy, as most are where only a prefetch happens; False where it was not filled whole."""
        page_size, region = self._page_size, self.regions[0]
        position, length = start * page_size, (end - start) * page_size
        layer, _, piece_end = self._image.locate(position)
        if not layer or position + length > piece_end or end > region.end_page:
            return False
        try:
            copied = kernel.copy(self._uffd, region.shift + position, layer + position, length)
        except FileExistsError:
            return False
        pages = copied // page_size
        self._map.mark(start, start + pages, state)
        self._counters[PRESENT_PAGES] += pages
        self._counters[COPIED_BYTES] += copied
        return copied == length

    def remove(self, start: int, end: int) -> None:
        """Note that the guest gave back the addresses [start, end): zeros from now on, never the image's again."""
        for region in self.regions:
            low, high = max(start, region.base), min(end, region.end_address)
            if low >= high:
                continue
            first = (low - region.shift) // self._page_size
            last = (high - region.shift) // self._page_size
            states = self._map.states(first, last)
            absent = states.count(ABSENT) + states.count(REMOVED)
            # First: without it a successor would take a run for one in which nothing is removed.
            self._counters[REMOVED_PAGES] += len(states)
            self._map.mark(first, last, REMOVED)
            self._counters[PRESENT_PAGES] -= len(states) - absent

    def _fill(self, region: Region, position: int, stop: int, state: int) -> tuple[int, int]:
        """Install what comes from one place, from `position` on; returns the bytes and the state that they are in."""
        address, _, end = self._image.locate(position)
        source, length = address + position, (end if end < stop else stop) - position
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
        """Note a page that was there before its copy; OSError when it is the pool of huge pages that is empty."""
        page = position // self._page_size
        if self._page_size != GRANULE_BYTES and self._pages[page] in (ABSENT, REMOVED):
            # Without a free huge page the kernel says EEXIST too, of pages that are absent (hugetlb_mfill_atomic_pte in
            # mm/hugetlb.c); taking that for success would wake the guest into the same fault for ever.
            check_not_empty()
        if self._pages[page] == ABSENT:
            self._counters[PRESENT_PAGES] += 1
            self._pages[page] = FAULTED
        # A copy that meets a page wakes nobody.
        kernel.wake(self._uffd, region.shift + position, self._page_size)


def absent_runs(states: bytes, start: int) -> Iterator[tuple[int, int]]:
    """The maximal runs [first, last) of absent pages in the states of pages from `start` on."""
    position = states.find(ABSENT)
    while position >= 0:
        rest = states[position:]
        length = len(rest) - len(rest.lstrip(b"\0"))
        yield start + position, start + position + length
        position = states.find(ABSENT, position + length)
