"""What /proc shows of a VMM's memory: which pages are there, and which addresses a userfaultfd serves."""

import errno
import os
import re
import sys
from collections.abc import Iterator

_ENTRY_BYTES = 8
_KERNEL_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_HIGHEST_BYTE = 7 if sys.byteorder == "little" else 0
_PRESENT_OR_SWAPPED = bytes(byte >> 6 != 0 for byte in range(256))
"""By the highest byte of a pagemap entry, its bits 63 and 62: Documentation/admin-guide/mm/pagemap.rst."""
_CHUNK_PAGES = 1 << 16

_RANGE = re.compile(rb"([0-9a-f]+)-([0-9a-f]+) ")
_FLAGS = b"VmFlags:"
_SERVED = b"um"
"""The flag of memory whose missing pages a userfaultfd reports: smaps in Documentation/filesystems/proc.rst."""


def presence(pagemap: int, address: int, count: int, page_size: int) -> Iterator[tuple[int, bytes]]:
    """Yield, in pieces, which of `count` pages from `address` on are there, swapped out or not.

    `pagemap` is a descriptor of a process's. Each piece is the number of its first page and one byte a page: 1 where
    the process has memory there, else 0. Raises OSError where the process is gone.
    """
    step = page_size // _KERNEL_PAGE_BYTES * _ENTRY_BYTES
    for start in range(0, count, _CHUNK_PAGES):
        pages = min(_CHUNK_PAGES, count - start)
        position = (address + start * page_size) // _KERNEL_PAGE_BYTES * _ENTRY_BYTES
        data = os.pread(pagemap, pages * step, position)
        if len(data) != pages * step:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        yield start, data[_HIGHEST_BYTE::step].translate(_PRESENT_OR_SWAPPED)


def served_ranges(smaps: int) -> list[tuple[int, int]]:
    """Return the ranges [start, end) of addresses that a userfaultfd serves, those that adjoin as one.

    `smaps` is a descriptor of a process's. Raises OSError. It walks the page tables of the whole process.
    """
    found: list[tuple[int, int]] = []
    start = end = 0
    with os.fdopen(os.dup(smaps), "rb") as file:
        lines = file.read().splitlines()
    for line in lines:
        if told := _RANGE.match(line):
            start, end = int(told[1], 16), int(told[2], 16)
        elif line.startswith(_FLAGS) and _SERVED in line.split():
            if found and found[-1][1] == start:
                found[-1] = (found[-1][0], end)
            else:
                found.append((start, end))
    return found
