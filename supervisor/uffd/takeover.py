"""What a page server needs to go on where a dead one stopped: the fork's userfaultfd, and what became of its pages.

The VMM keeps its own userfaultfd, so the guest waits and nothing is lost with the page server. What the page map of the
dead one says may lag the kernel by one batch: a page that was copied and not noted meets EEXIST, and a page that was
there, was removed and not noted is found by /proc/<pid>/pagemap. What cannot be found is the removal of a page that was
never there, where its event was read and not noted: such a page is the image's when it is touched.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from supervisor.errors import PageServerError
from supervisor.uffd import kernel
from supervisor.uffd.handshake import USERFAULTFD_NAME, Mapping
from supervisor.uffd.page_map import (
    ABSENT,
    OLDEST_UNANSWERED_NS,
    PRESENT_PAGES,
    REMOVED,
    REMOVED_PAGES,
    PageMap,
)
from supervisor.uffd.terms import Terms

_ENTRY_BYTES = 8
_KERNEL_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_HIGHEST_BYTE = 7 if sys.byteorder == "little" else 0
_PRESENT_OR_SWAPPED = bytes(byte >> 6 != 0 for byte in range(256))
"""By the highest byte of a pagemap entry, its bits 63 and 62: Documentation/admin-guide/mm/pagemap.rst."""
_NOTED = bytes(state not in (ABSENT, REMOVED) for state in range(256))
"""By the state of a page, whether the page map says that it is there."""
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
    except PermissionError as error:
        # PTRACE_MODE_ATTACH_REALCREDS in kernel/pid.c, and yama_ptrace_access_check in security/yama/yama_lsm.c.
        raise PageServerError(
            f"the userfaultfd of pid {pid} cannot be had: {error.strerror}; the supervisor may not trace a VMM of "
            "another user, nor, with kernel.yama.ptrace_scope=1, one that it did not start: give it CAP_SYS_PTRACE, or "
            "set that to 0"
        ) from error
    except OSError as error:
        raise PageServerError(f"the userfaultfd of pid {pid} cannot be had: {error.strerror}") from error
    raise PageServerError(f"pid {pid} has no userfaultfd")


def reopen(terms: Terms, page_size: int, page_count: int) -> tuple[PageMap, tuple[Mapping, ...]]:
    """The page map that a dead page server left, made true again, and the mappings that its handshake had told.

    PageServerError when there is no such map, or the VMM's memory cannot be looked at.
    """
    pages = PageMap.reopen(terms.page_map, page_size, page_count)
    mappings = tuple(Mapping(*mapping) for mapping in pages.mappings())
    try:
        if not mappings:
            raise PageServerError(f"fork {terms.fork_id}: its handshake was never made")
        removed = note_lost_removals(terms.vmm_pid, mappings, pages, page_size)
    except (OSError, PageServerError) as error:
        pages.close()
        if isinstance(error, PageServerError):
            raise
        reason = f"the memory of pid {terms.vmm_pid} cannot be looked at: {error.strerror}"
        raise PageServerError(f"fork {terms.fork_id}: {reason}") from error
    # Not from what it was: the dead one counted its answers after it had noted them.
    states = pages.states(0, page_count)
    pages.counters[PRESENT_PAGES] = page_count - states.count(ABSENT) - states.count(REMOVED)
    pages.counters[REMOVED_PAGES] += removed
    # What the dead one had read is raised again, and is young then.
    pages.counters[OLDEST_UNANSWERED_NS] = 0
    return pages, mappings


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
                address = mapping.base + start * page_size - mapping.offset
                noted = pages.states(start, end).translate(_NOTED)
                present = _presence(pagemap.fileno(), address, end - start, page_size)
                for offset in _lacking(noted, present):
                    pages.mark(start + offset, start + offset + 1, REMOVED)
                    found += 1
    return found


def _presence(pagemap: int, address: int, count: int, page_size: int) -> bytes:
    """Return one byte for each of `count` pages from `address` on: 1 where the process has memory there, else 0."""
    step = page_size // _KERNEL_PAGE_BYTES * _ENTRY_BYTES
    data = os.pread(pagemap, count * step, address // _KERNEL_PAGE_BYTES * _ENTRY_BYTES)
    return data[_HIGHEST_BYTE::step].translate(_PRESENT_OR_SWAPPED)


def _lacking(noted: bytes, present: bytes) -> Iterator[int]:
    """Yield the places that are 1 in `noted` and not in `present`; guests wait, so mostly without a look at each."""
    lost = int.from_bytes(noted, "little") & ~int.from_bytes(present, "little")
    places = lost.to_bytes(len(noted), "little") if lost else b""
    place = places.find(1)
    while place >= 0:
        yield place
        place = places.find(1, place + 1)
