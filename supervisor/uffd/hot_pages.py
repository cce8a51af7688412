"""Hot pages: the pages that a template's forks touch first, recorded on some forks and prefetched on later ones."""

import os
import zlib
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from struct import Struct
from typing import NamedTuple

from supervisor.system.regular_files import discard, open_regular
from supervisor.system.sparse_files import created
from supervisor.uffd.memory_image import LayerIdentity

_MAGIC = b"FTHOTPG\0"
_VERSION = 2
_HEADER = Struct("<8sIIIIIQQ")  # magic, version, page size, layers, runs, recordings, held back, touched
_LAYER = Struct("<QqQQ")  # size, mtime in ns, inode, device
_RUN = Struct("<III")  # start, end, count
_CHECKSUM = Struct("<I")  # CRC-32 of all before it


class Run(NamedTuple):
    """Pages [start, end) of the memory image."""

    start: int
    end: int


class CountedRun(NamedTuple):
    """Pages [start, end) of the memory image, each touched in `recordings` of the recordings."""

    start: int
    end: int
    recordings: int


class HotPages(NamedTuple):
    """A hot-page list, the memory image that it belongs to, and what the forks made of it."""

    identity: tuple[LayerIdentity, ...]
    page_size: int
    runs: tuple[CountedRun, ...] = ()
    """In the order of their first touch in the first recording that has them, older recordings first."""
    recordings: int = 0
    held_back: int = 0
    """Pages of this list that were held back from a fork to see whether it would want them, over all such forks."""
    touched: int = 0
    """How many of those it wanted."""


def pages_in(runs: Iterable[Run]) -> int:
    """Pages in all runs."""
    return sum(end - start for start, end in runs)


class Recording:
    """The faults of one fork in the order in which they came, within the bounds of a policy.

    The quiet time counts from the last fault, the longest time from the first: a fork that has not begun to run has
    nothing to end. Times are nanoseconds of the monotonic clock.
    """

    def __init__(self, longest_ns: int, quiet_ns: int, most_pages: int) -> None:
        self.touched: list[int] = []
        self._longest_ns = longest_ns
        self._quiet_ns = quiet_ns
        self._most_pages = most_pages
        self._first_ns = 0
        self._last_ns = 0

    def touch(self, pages: Sequence[int], now_ns: int) -> None:
        """Add faults, as many as the bound leaves room for."""
        if not self.touched:
            self._first_ns = now_ns
        self._last_ns = now_ns
        self.touched.extend(pages[: self._most_pages - len(self.touched)])

    @property
    def full(self) -> bool:
        """Whether it has as many pages as it may."""
        return len(self.touched) >= self._most_pages

    def ends_at_ns(self) -> int | None:
        """When it ends if no further fault comes; None while there was none."""
        if not self.touched:
            return None
        if self.full:
            return self._last_ns
        return min(self._first_ns + self._longest_ns, self._last_ns + self._quiet_ns)

    def cut_off(self, now_ns: int) -> bool:
        """Whether it would end before any of its bounds could have ended it, and tells nothing of what guests want."""
        return not self.full and now_ns < self._first_ns + min(self._longest_ns, self._quiet_ns)


def pack(hot: HotPages) -> bytes:
    """The list's bytes on disk."""
    body = b"".join(
        (
            _HEADER.pack(
                *(_MAGIC, _VERSION, hot.page_size, len(hot.identity), len(hot.runs)),
                *(hot.recordings, hot.held_back, hot.touched),
            ),
            *(_LAYER.pack(*layer) for layer in hot.identity),
            Struct(f"<{len(hot.runs) * len(CountedRun._fields)}I").pack(*chain.from_iterable(hot.runs)),
        )
    )
    return body + _CHECKSUM.pack(zlib.crc32(body))


def unpack(data: bytes) -> HotPages:
    """The list in these bytes; ValueError with the reason when they are not one, whole and intact."""
    if len(data) < _HEADER.size:
        raise ValueError(f"{len(data)} bytes are shorter than its header")
    magic, version, page_size, layers, runs, recordings, held_back, touched = _HEADER.unpack_from(data)
    if magic != _MAGIC:
        raise ValueError("its first bytes are not a hot-page list's")
    if version != _VERSION:
        raise ValueError(f"it has version {version}, and only version {_VERSION} can be read")
    runs_at = _HEADER.size + layers * _LAYER.size
    checksum_at = runs_at + runs * _RUN.size
    if len(data) != checksum_at + _CHECKSUM.size:
        raise ValueError(f"it has {len(data)} bytes where its header tells of {checksum_at + _CHECKSUM.size}")
    if _CHECKSUM.unpack_from(data, checksum_at) != (zlib.crc32(data[:checksum_at]),):
        raise ValueError("its checksum does not match")
    return HotPages(
        identity=tuple(LayerIdentity(*fields) for fields in _LAYER.iter_unpack(data[_HEADER.size : runs_at])),
        page_size=page_size,
        runs=tuple(CountedRun(*fields) for fields in _RUN.iter_unpack(data[runs_at:checksum_at])),
        recordings=recordings,
        held_back=held_back,
        touched=touched,
    )


def mismatch(hot: HotPages, identity: tuple[LayerIdentity, ...], page_size: int, page_count: int) -> str | None:
    """Why the list cannot be used for this image; None when it can."""
    layers = list(zip(identity, hot.identity, strict=False))
    if len(hot.identity) != len(identity) or not all(found.may_be_copy(noted) for found, noted in layers):
        return "it was recorded on another memory image: the size or mtime of a layer differs"
    if hot.page_size != page_size:
        return f"its pages are of {hot.page_size} bytes and the image's of {page_size}"
    end = 0
    for run in sorted(hot.runs):
        if run.start < end or run.end <= run.start or run.end > page_count:
            return f"its run of pages {run.start} to {run.end} is empty, overlaps another or leaves the image"
        if not 0 < run.recordings <= hot.recordings:
            return f"its run of pages {run.start} to {run.end} is of {run.recordings} of {hot.recordings} recordings"
        end = run.end
    if hot.touched > hot.held_back:
        return f"of {hot.held_back} pages that were held back {hot.touched} were touched"
    return None


def save(path: Path, hot: HotPages) -> None:
    """Replace the file at once, so that a reader sees the old list or the new one.

    It is not synced: after a power failure the checksum tells a torn list, and recording again costs one fork.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        discard(unfinished)
        with created(unfinished) as fd, os.fdopen(fd, "wb", closefd=False) as file:
            file.write(pack(hot))
        unfinished.rename(path)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise


def read(path: Path, layers: int, page_count: int) -> bytes | None:
    """The file's bytes, or None without one; of a file too long for such an image only so much as tells that it is.

    OSError when it cannot be read.
    """
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            return file.read(most_bytes(layers, page_count) + 1)
    except FileNotFoundError:
        return None


def most_bytes(layers: int, page_count: int) -> int:
    """How long the list of such an image may be."""
    return _HEADER.size + layers * _LAYER.size + page_count * _RUN.size + _CHECKSUM.size
