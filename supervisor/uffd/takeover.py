"""What a page server needs to go on where a dead one stopped: the fork's userfaultfd, and what became of its pages.

The VMM keeps its own userfaultfd, so the guest waits and nothing is lost with the page server. What the page map of the
dead one says may lag the kernel by one batch: a page that was copied and not noted meets EEXIST, and a page that was
removed and not noted is found by /proc/<pid>/pagemap.
"""

import contextlib
import os
from array import array
from pathlib import Path

from supervisor.errors import PageServerError
from supervisor.uffd import kernel
from supervisor.uffd.handshake import USERFAULTFD_NAME, Mapping
from supervisor.uffd.page_map import ABSENT, REMOVED, PageMap

_ENTRY_BYTES = 8
_KERNEL_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PRESENT_OR_SWAPPED = 0b11 << 62
"""Bits 63 and 62 of a pagemap entry: Documentation/admin-guide/mm/pagemap.rst."""
_CHUNK_PAGES = 1 << 16


def take_userfaultfd(pid: int) -> int:
    """Return a duplicate of the userfaultfd of a VMM; the caller owns it.

    Needs ptrace access to the VMM (pidfd_getfd(2)): root, or a parent of it with the same uid. Raises PageServerError
    where the VMM is gone, has no userfaultfd, or may not be asked.
    """
    try:
        pidfd = os.pidfd_open(pid)
        try:
            for entry in Path(f"/proc/{pid}/fd").iterdir():
                with contextlib.suppress(FileNotFoundError):
                    if str(entry.readlink()) == USERFAULTFD_NAME:
                        return kernel.pidfd_getfd(pidfd, int(entry.name))
        finally:
            os.close(pidfd)
    except OSError as error:
        raise PageServerError(f"the userfaultfd of pid {pid} cannot be had: {error.strerror}") from error
    raise PageServerError(f"pid {pid} has no userfaultfd")


def note_lost_removals(pid: int, mappings: tuple[Mapping, ...], pages: PageMap, page_size: int) -> int:
    """Mark as removed what the page map says is there and the VMM's memory does not have; returns how many pages.

    Raises OSError where the VMM's pagemap cannot be read.
    """
    found = 0
    with Path(f"/proc/{pid}/pagemap").open("rb", buffering=0) as pagemap:
        for mapping in mappings:
            first, last = mapping.offset // page_size, (mapping.offset + mapping.size) // page_size
            for start in range(first, last, _CHUNK_PAGES):
                end = min(start + _CHUNK_PAGES, last)
                states = pages.states(start, end)
                if states.count(ABSENT) + states.count(REMOVED) == len(states):
                    continue
                address = mapping.base + start * page_size - mapping.offset
                for offset, present in enumerate(_presence(pagemap.fileno(), address, end - start, page_size)):
                    if not present and states[offset] not in (ABSENT, REMOVED):
                        pages.mark(start + offset, start + offset + 1, REMOVED)
                        found += 1
    return found


def _presence(pagemap: int, address: int, count: int, page_size: int) -> list[bool]:
    """Return of each of `count` pages from `address` on whether the process has memory there."""
    step = page_size // _KERNEL_PAGE_BYTES
    data = os.pread(pagemap, count * step * _ENTRY_BYTES, address // _KERNEL_PAGE_BYTES * _ENTRY_BYTES)
    entries = array("Q", data)
    return [bool(entry & _PRESENT_OR_SWAPPED) for entry in entries[::step]]
