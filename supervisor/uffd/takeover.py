"""What a page server needs to go on where a dead one stopped: the fork's userfaultfd, and what became of its pages.

The VMM keeps its own userfaultfd, so the guest waits and nothing is lost with the page server. What the page map of the
dead one says may lag the kernel by one batch: a page that was copied and not noted meets EEXIST, and a page that was
there, was removed and not noted is found by /proc/<pid>/pagemap. What cannot be found is the removal of a page that was
never there, where its event was read and not noted: such a page is the image's when it is touched.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

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
from supervisor.uffd.remaking import remade
from supervisor.uffd.terms import LeftFork, Terms
from supervisor.uffd.vmm_memory import presence

_NOTED = bytes(state not in (ABSENT, REMOVED) for state in range(256))
"""By the state of a page, whether the page map says that it is there."""


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


class Reopened(NamedTuple):
    """A fork's page map, and the mappings that its handshake had told."""

    pages: PageMap
    mappings: tuple[Mapping, ...]
    anew: bool
    """Whether the map is in the new file, and no more in the one that was left."""


def reopen(terms: Terms, left: LeftFork, page_size: int, page_count: int) -> Reopened:
    """The page map that a dead page server left, made true again.

    One that is lost or damaged is made anew where the terms say that nothing can have been given back. PageServerError
    when there is no map to be had, or the VMM's memory cannot be looked at.
    """
    anew = False
    try:
        try:
            pages, mappings = _left(terms, left, page_size, page_count)
        except PageServerError as lost:
            pages, mappings = _instead(lost, terms, left, page_size, page_count)
            anew = True
    except OSError as error:
        reason = f"the memory of pid {terms.vmm_pid} cannot be looked at: {error.strerror}"
        raise PageServerError(f"fork {terms.fork_id}: {reason}") from error
    # Not from what it was: the dead one counted its answers after it had noted them.
    states = pages.states(0, page_count)
    pages.counters[PRESENT_PAGES] = page_count - states.count(ABSENT) - states.count(REMOVED)
    # What the dead one had read is raised again, and is young then.
    pages.counters[OLDEST_UNANSWERED_NS] = 0
    return Reopened(pages, mappings, anew)


def _left(terms: Terms, left: LeftFork, page_size: int, page_count: int) -> tuple[PageMap, tuple[Mapping, ...]]:
    """What the dead one left; raises PageServerError where that is no whole map, and OSError."""
    if left.left_map is None:
        raise PageServerError(f"page map {terms.page_map} cannot be opened: there is none, or it is no file")
    pages = PageMap.reopen(left.left_map, terms.page_map, page_size, page_count)
    try:
        mappings = tuple(Mapping(*mapping) for mapping in pages.mappings())
        if not mappings:
            raise PageServerError(f"fork {terms.fork_id}: its handshake was never made")
        if not _covers(mappings, page_size, page_count):
            raise PageServerError(f"{terms.page_map} is damaged: its mappings are not those of the memory image")
        pages.counters[REMOVED_PAGES] += note_lost_removals(left.pagemap, mappings, pages, page_size)
        if terms.nothing_removed and pages.states(0, page_count).count(REMOVED):
            raise PageServerError(f"{terms.page_map} is damaged: it has pages that were given back, which none can be")
    except BaseException:
        pages.close()
        raise
    return pages, mappings


def _instead(
    lost: PageServerError, terms: Terms, left: LeftFork, page_size: int, page_count: int
) -> tuple[PageMap, tuple[Mapping, ...]]:
    """A map in the place of one that is lost; PageServerError where there can be none, and OSError."""
    if not terms.nothing_removed:
        raise PageServerError(
            f"{lost.message}; which pages its guest has given back is not known without it, and its VM has a device to "
            "do that, or it is not known whether"
        ) from lost
    try:
        return remade(terms, left, page_size, page_count)
    except PageServerError as error:
        raise PageServerError(f"{lost.message}; another cannot be made: {error.message}") from error


def _covers(mappings: tuple[Mapping, ...], page_size: int, page_count: int) -> bool:
    """Whether these are mappings of the whole image, one behind the other, in its pages."""
    position = 0
    for mapping in mappings:
        if mapping.offset != position or not mapping.size or mapping.base % page_size or mapping.size % page_size:
            return False
        position += mapping.size
    return position == page_size * page_count


def note_lost_removals(pagemap: int, mappings: tuple[Mapping, ...], pages: PageMap, page_size: int) -> int:
    """Mark as removed what the page map says is there and the VMM's memory does not have; returns how many pages.

    Raises OSError where the VMM's pagemap cannot be read.
    """
    found = 0
    for mapping in mappings:
        first = mapping.offset // page_size
        for start, present in presence(pagemap, mapping.base, mapping.size // page_size, page_size):
            noted = pages.states(first + start, first + start + len(present)).translate(_NOTED)
            for offset in _lacking(noted, present):
                page = first + start + offset
                pages.mark(page, page + 1, REMOVED)
                found += 1
    return found


def _lacking(noted: bytes, present: bytes) -> Iterator[int]:
    """Yield the places that are 1 in `noted` and not in `present`; guests wait, so mostly without a look at each."""
    lost = int.from_bytes(noted, "little") & ~int.from_bytes(present, "little")
    places = lost.to_bytes(len(noted), "little") if lost else b""
    place = places.find(1)
    while place >= 0:
        yield place
        place = places.find(1, place + 1)
