"""The dirty log: which pages a Diff snapshot has to hold. Pure.

KVM's log (KVM_GET_DIRTY_LOG) and Firecracker's bitmap know of writes only. A page that the balloon gave back is zero
without a write, so in Firecracker a Diff leaves it out, and the layers below bring its old content back. Here a Diff
has it, as zeros.
"""

import re
from collections.abc import Iterator
from typing import Final

from supervisor.guests.pagewalker import PAGE_SIZE

CLEAN, WRITTEN, DISCARDED = 0, 1, 2
"""A page's states: as in the snapshot before, written to since, and given back since and not written to again."""
_RUN: Final = re.compile(rb"\x01+|\x02+")


class DirtyLog:
    """What happened to every page since the last snapshot; addresses are those in a mem-file, in bytes.

    Without `has_base` no snapshot was ever made: a page that nothing was written to is zero in the image anyway.
    """

    def __init__(self, page_count: int, has_base: bool) -> None:
        self._pages = bytearray(page_count)
        self._has_base = has_base

    def write(self, address: int, length: int) -> None:
        """Note that bytes were written."""
        self._mark(address // PAGE_SIZE, -(-(address + length) // PAGE_SIZE), WRITTEN)

    def discard(self, address: int, length: int) -> None:
        """Note that pages were given back."""
        state = DISCARDED if self._has_base else CLEAN
        self._mark(address // PAGE_SIZE, (address + length) // PAGE_SIZE, state)

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield the runs of pages that are not clean as (start, end, state), ascending; start and end are bytes."""
        for run in _RUN.finditer(self._pages):
            yield run.start() * PAGE_SIZE, run.end() * PAGE_SIZE, self._pages[run.start()]

    def reset(self) -> None:
        """Begin anew: a snapshot of all of this has been made."""
        self._pages = bytearray(len(self._pages))
        self._has_base = True

    def _mark(self, start: int, end: int, state: int) -> None:
        self._pages[start:end] = bytes((state,)) * (end - start)
