"""A page map made anew, where the one that a dead page server left is lost: from what the kernel shows of the VMM.

Which pages are there can be seen. Which of the absent ones the guest gave back cannot: those are zeros when they are
touched again, and all others are the image's. So this is for guests alone that have nothing to give pages back by.
"""

from functools import partial
from typing import Final

from supervisor.errors import PageServerError
from supervisor.uffd.handshake import Mapping
from supervisor.uffd.page_map import ABSENT, FAULTED, PageMap
from supervisor.uffd.terms import LeftFork, Terms
from supervisor.uffd.vmm_memory import presence, served_ranges

ONE_REGION_BYTES: Final = 3 << 30
"""Up to here all of a guest's memory lies below Firecracker's gap for MMIO, in one region: on x86_64 the gap begins at
3 GiB or above (src/vmm/src/arch/x86_64/layout.rs). Where one region begins in the image is plain; of two it is not."""

_STATES: Final = bytes((ABSENT, FAULTED)) + bytes(254)
"""By the presence of a page: how one came that is there is not known, so it counts as asked for."""


def remade(terms: Terms, left: LeftFork, page_size: int, page_count: int) -> tuple[PageMap, tuple[Mapping, ...]]:
    """The page map of a fork whose guest can have given nothing back, and the mappings of its handshake.

    Raises OSError, and PageServerError where it cannot be told which memory is the guest's.
    """
    mapping = _guest_memory(left.smaps, page_size * page_count)
    fill = partial(_fill, left.pagemap, mapping, page_size)
    return PageMap.create(left.new_map, terms.page_map, page_size, page_count, fill), (mapping,)


def _fill(pagemap: int, mapping: Mapping, page_size: int, pages: PageMap) -> None:
    for start, present in presence(pagemap, mapping.base, pages.page_count, page_size):
        pages.pages[start : start + len(present)] = present.translate(_STATES)
    pages.note_mappings((mapping,))


def _guest_memory(smaps: int, memory_size: int) -> Mapping:
    """The one region that is served; PageServerError where there is none, or not that alone."""
    if memory_size > ONE_REGION_BYTES:
        raise PageServerError("its memory is in several regions, and which is which was in the map")
    found = served_ranges(smaps)
    if [end - start for start, end in found] != [memory_size]:
        sizes = " and ".join(str(end - start) for start, end in found) or "no"
        raise PageServerError(f"its VMM has {sizes} bytes of memory that is served, and the image {memory_size}")
    return Mapping(found[0][0], memory_size, 0)
