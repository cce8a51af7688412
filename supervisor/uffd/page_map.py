"""The page map: how every page of one fork arrived, and counters, in a file that both sides map.

The page server writes it in place while it serves; the supervisor reads it whenever it likes and no call is made. Its
layout, in the host's byte order: a 4096-byte header (magic, version, page size, page count, then the counters as 64-bit
words, and the fork's mappings), then one byte for each page of the memory image.
"""

import errno
import mmap
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from supervisor.errors import PageServerError
from supervisor.system.regular_files import open_regular
from supervisor.system.same_file import is_at
from supervisor.uffd import kernel

ABSENT, FAULTED, FAULT_AROUND, PREFETCHED, ZERO, REMOVED = range(6)
"""A page's states. ZERO: no layer has it, it was answered with zeros. REMOVED: the guest gave it back (balloon); it is
absent, and zero when it is touched again."""

_MARKS = tuple(bytes((state,)) for state in range(REMOVED + 1))
_MAGIC = b"FTPAGES\0"
_VERSION = 1
_HEADER_BYTES = 4096
_HEADER = Struct("=8sIIQ")  # magic, version, page size, page count
_COUNTERS_OFFSET = 64
_MAPPINGS_OFFSET = 2048
_MAPPING_COUNT = Struct("=Q")
_MAPPING = Struct("=QQQ")  # base, size, offset
_MOST_MAPPINGS = (_HEADER_BYTES - _MAPPINGS_OFFSET - _MAPPING_COUNT.size) // _MAPPING.size

LATENCY_BUCKETS = 20
LATENCY_BOUNDS_SECONDS = tuple([2**power / 1e6 for power in range(LATENCY_BUCKETS - 1)] + [float("inf")])
"""Upper bound of each latency bucket, exclusive: 1 us, 2 us, 4 us ... 262 ms, and the rest."""

(
    FAULTS,
    FAULT_AROUND_PAGES,
    PRESENT_PAGES,
    PREFETCHED_PAGES,
    PREFETCHED_BYTES,
    PREFETCH_NS,
    PREFETCH_FINISHED,
    RESIDUAL_FAULTS,
    COPIED_BYTES,
    ZERO_PAGES,
    REMOVED_PAGES,
    COPY_ERRORS,
    DEFERRED_FAULTS,
    FAULT_NS,
    OLDEST_UNANSWERED_NS,
    LATENCY,
) = range(16)
"""Index of each counter word; LATENCY is the first of its buckets."""

_WORDS = LATENCY + LATENCY_BUCKETS
_COUNTERS = Struct(f"={_WORDS}Q")


class PageCounters(NamedTuple):
    """One fork's counters at one moment; since the fork began unless it says otherwise."""

    faults: int
    """Demand faults answered."""
    fault_around_pages: int
    """Pages that came with a fault of a neighbour."""
    present_pages: int
    """Pages installed now: removed ones are not in it."""
    prefetched_pages: int
    """Pages that the prefetch installed, those of zeros included."""
    prefetched_bytes: int
    """Bytes that the prefetch copied; pages of zeros need no copy."""
    prefetch_seconds: float
    prefetch_finished: bool
    """There was something to prefetch, and its prefetch has ended."""
    residual_faults: int
    """Demand faults after the prefetch had finished."""
    copied_bytes: int
    zero_pages: int
    """Times that a page was answered with zeros."""
    removed_pages: int
    """Pages given back by the guest."""
    copy_errors: int
    """Answers that failed otherwise than by a rule: each is tried again."""
    deferred_faults: int
    """Faults put off because an event was pending (EAGAIN) or their answer had failed."""
    fault_seconds: float
    """Sum of the service times: from reading the fault to its answer."""
    oldest_fault_age_seconds: float
    """Age of the oldest fault that was read and not answered; 0 when there is none."""
    latency_counts: tuple[int, ...]
    """Faults by service time; `LATENCY_BOUNDS_SECONDS` has the bounds."""


class CellCounts(NamedTuple):
    """Pages by state in one cell of a folded page map."""

    absent: int
    faulted: int
    fault_around: int
    prefetched: int
    zero: int
    removed: int


class PageMap:
    """The page server's side: the only writer of one fork's page map."""

    def __init__(self, path: Path, page_count: int) -> None:
        self._path = path
        """What errors call it: which file it is in is another's affair."""
        self._file: os.stat_result | None = None
        self._memory = _memory(page_count)
        self._view = memoryview(self._memory)
        self.page_count = page_count
        self.counters = self._view[_COUNTERS_OFFSET : _COUNTERS_OFFSET + _COUNTERS.size].cast("Q")
        """The counter words; a store to one is a single 8-byte store, so that a reader never sees half of it."""
        self.pages = self._view[_HEADER_BYTES:]
        """The state of each page."""

    @classmethod
    def create(
        cls, file: int, path: Path, page_size: int, page_count: int, fill: "Callable[[PageMap], None] | None" = None
    ) -> "PageMap":
        """A new map in an empty file, by its descriptor: with every page absent, or as `fill` makes it.

        OSError when there is no room for it, and what `fill` raises.
        """
        pages = cls(path, page_count)
        try:
            _HEADER.pack_into(pages._memory, 0, _MAGIC, _VERSION, page_size, page_count)
            if fill is not None:
                fill(pages)
            pages.move_to(file)
        except BaseException:
            pages.close()
            raise
        return pages

    @classmethod
    def reopen(cls, file: int, path: Path, page_size: int, page_count: int) -> "PageMap":
        """The map that a dead page server left, to be written on; PageServerError when it is not one of this image.

        OSError when it cannot be mapped.
        """
        with PageMapReader(path, os.dup(file)) as left:
            found = left.page_size, left.page_count
        if found != (page_size, page_count):
            raise PageServerError(f"{path} is of {found[1]} pages of {found[0]} bytes, another image's")
        pages = cls(path, page_count)
        try:
            kernel.map_over(pages._memory, file)
            pages._file = os.fstat(file)
        except BaseException:
            pages.close()
            raise
        return pages

    @property
    def size(self) -> int:
        """Bytes of its file."""
        return len(self._memory)

    @property
    def device_and_inode(self) -> tuple[int, int]:
        """Which file it is in, wherever that lies."""
        return (self._file.st_dev, self._file.st_ino) if self._file else (0, 0)

    def move_to(self, file: int) -> None:
        """Go on in this file, which is empty, by its descriptor; who has a view of the pages or counters keeps it.

        OSError when there is no room for it, or the file that it is in was truncated; it goes on as it was then.
        """
        # A store to a page that the file system has no room for is SIGBUS: the room is taken now.
        os.posix_fallocate(file, 0, len(self._memory))
        # Read by the kernel: where the file was truncated under it that stops short, and a look would be SIGBUS.
        if os.pwrite(file, self._view, 0) != len(self._memory):
            raise OSError(errno.EFAULT, "it was truncated while it was mapped")
        kernel.map_over(self._memory, file)
        self._file = os.fstat(file)

    def note_mappings(self, mappings: Sequence[tuple[int, int, int]]) -> None:
        """Keep (base, size, offset) of each of the fork's mappings, for a page server that takes over from this one."""
        position = _MAPPINGS_OFFSET + _MAPPING_COUNT.size
        for mapping in mappings:
            _MAPPING.pack_into(self._memory, position, *mapping)
            position += _MAPPING.size
        # Last: who finds a count finds all that it counts.
        _MAPPING_COUNT.pack_into(self._memory, _MAPPINGS_OFFSET, len(mappings))

    def mappings(self) -> list[tuple[int, int, int]]:
        """What `note_mappings` kept; none before the handshake. PageServerError where they cannot be what it kept."""
        (count,) = _MAPPING_COUNT.unpack_from(self._memory, _MAPPINGS_OFFSET)
        if count > _MOST_MAPPINGS:
            raise PageServerError(f"{self._path} is damaged: it says that it has {count} mappings")
        start = _MAPPINGS_OFFSET + _MAPPING_COUNT.size
        return [_MAPPING.unpack_from(self._memory, start + index * _MAPPING.size) for index in range(count)]

    def states(self, start: int, end: int) -> bytes:
        """The states of pages [start, end)."""
        return self._memory[_HEADER_BYTES + start : _HEADER_BYTES + end]

    def mark(self, start: int, end: int, state: int) -> None:
        """Set the state of pages [start, end)."""
        self._memory[_HEADER_BYTES + start : _HEADER_BYTES + end] = _MARKS[state] * (end - start)

    def close(self) -> None:
        """Unmap; the file stays as it is."""
        self.counters.release()
        self.pages.release()
        self._view.release()
        self._memory.close()


class PageMapReader:
    """The supervisor's side: reads a page map that a page server writes, or has written.

    By its descriptor: a mapping of a file that somebody truncates would be SIGBUS, the end of all that it supervises.
    """

    def __init__(self, path: Path, descriptor: int | None = None) -> None:
        """Open it, or take a descriptor of it, which it closes.

        PageServerError where the file is no whole page map, OSError where it cannot be opened.
        """
        self._path = path
        self._raw = b""
        self._counters: PageCounters
        self._fd = open_regular(path) if descriptor is None else descriptor
        try:
            self._check()
        except BaseException:
            os.close(self._fd)
            raise

    def _check(self) -> None:
        size = os.fstat(self._fd).st_size
        if size < _HEADER_BYTES:
            raise PageServerError(
                f"{self._path} is no page map: it has {size} bytes and the header alone {_HEADER_BYTES}"
            )
        header = os.pread(self._fd, _HEADER.size, 0).ljust(_HEADER.size, b"\0")
        magic, version, self.page_size, self.page_count = _HEADER.unpack(header)
        reason = None
        if magic != _MAGIC:
            reason = "is no page map: its first bytes are not a page map's"
        elif version != _VERSION:
            reason = f"is a page map of version {version}, and only version {_VERSION} can be read"
        elif size != _HEADER_BYTES + self.page_count:
            reason = f"is torn: {size} bytes do not hold {self.page_count} pages"
        if reason is not None:
            raise PageServerError(f"{self._path} {reason}")

    def __enter__(self) -> "PageMapReader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)

    @property
    def in_place(self) -> bool:
        """Whether this is the file at the path: where it is not, its page server goes on with another, or with none."""
        return is_at(self._path, os.fstat(self._fd))

    def counters(self) -> PageCounters:
        """The counters now: the very object of the call before, when nothing has changed since.

        PageServerError where the file was truncated.
        """
        raw = os.pread(self._fd, _COUNTERS.size, _COUNTERS_OFFSET)
        if len(raw) < _COUNTERS.size:
            raise PageServerError(f"{self._path} is torn: it was truncated")
        if raw == self._raw:
            return self._counters
        words = _COUNTERS.unpack(raw)
        oldest = words[OLDEST_UNANSWERED_NS]
        # With a fault unanswered its age grows although no word changes.
        self._raw = raw if not oldest else b""
        self._counters = PageCounters(
            faults=words[FAULTS],
            fault_around_pages=words[FAULT_AROUND_PAGES],
            present_pages=words[PRESENT_PAGES],
            prefetched_pages=words[PREFETCHED_PAGES],
            prefetched_bytes=words[PREFETCHED_BYTES],
            prefetch_seconds=words[PREFETCH_NS] / 1e9,
            prefetch_finished=words[PREFETCH_FINISHED] != 0,
            residual_faults=words[RESIDUAL_FAULTS],
            copied_bytes=words[COPIED_BYTES],
            zero_pages=words[ZERO_PAGES],
            removed_pages=words[REMOVED_PAGES],
            copy_errors=words[COPY_ERRORS],
            deferred_faults=words[DEFERRED_FAULTS],
            fault_seconds=words[FAULT_NS] / 1e9,
            # CLOCK_MONOTONIC is one clock for all processes of a host.
            oldest_fault_age_seconds=max(time.monotonic_ns() - oldest, 0) / 1e9 if oldest else 0.0,
            latency_counts=words[LATENCY:],
        )
        return self._counters

    def pages(self) -> bytes:
        """A copy of all states, one byte a page."""
        return os.pread(self._fd, self.page_count, _HEADER_BYTES)

    def fold(self, width: int) -> list[CellCounts]:
        """The map in `width` cells (fewer when there are fewer pages), each with its pages counted by state."""
        pages = self.pages()
        cells = min(width, self.page_count)
        folded = []
        for cell in range(cells):
            start, end = cell * self.page_count // cells, (cell + 1) * self.page_count // cells
            counts = [pages.count(state, start, end) for state in range(FAULTED, REMOVED + 1)]
            folded.append(CellCounts(end - start - sum(counts), *counts))
        return folded


def file_bytes(page_count: int) -> int:
    """How long the page map of such an image is."""
    return _HEADER_BYTES + page_count


def _memory(page_count: int) -> mmap.mmap:
    """Memory for a page map, which costs nothing until a file is mapped in its place."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | kernel.MAP_NORESERVE
    return mmap.mmap(-1, _HEADER_BYTES + page_count, flags)
