"""What a layer of a memory image is known by, so that one that was written, or badly copied, is not served. Pure.

A backup that was put back is the same image: inode and device are no part of a mark, and an mtime may come back in
coarser units. What has to come back as it was are the holes of a diff layer. A hole there says that the page is in a
layer below, so that one which was filled, or made where a page was zero, is another memory.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from supervisor.uffd.memory_image import is_same_time

_SHOWN_DIGITS = 8
"""Of a digest."""


class LayerMark(NamedTuple):
    """What was noted of a layer, or is there; the digests are hexadecimal, and None where nobody has looked."""

    size: int
    mtime_ns: int
    data_pages: int | None = None
    """How many pages of 4 KiB are in no hole."""
    extents: str | None = None
    """The digest of which those are."""
    content: str | None = None
    """The digest of what is read, wherever there are holes."""

    def __str__(self) -> str:
        at, nanoseconds = divmod(self.mtime_ns, 10**9)
        words = f"{self.size} bytes of {time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(at))}.{nanoseconds:09d}Z"
        if self.extents is not None:
            words += f", {self.data_pages} pages of data (map {self.extents[:_SHOWN_DIGITS]})"
        if self.content is not None:
            words += f", content {self.content[:_SHOWN_DIGITS]}"
        return words


def difference(noted: LayerMark, found: LayerMark, *, oldest: bool) -> str | None:
    """Return what has become of a layer that is not what was noted; None where it is that, or a copy of it.

    In the `oldest` layer a hole is zero as well as data that is, since there is nothing below it.
    """
    if found.size < noted.size:
        return f"was truncated from {noted.size} to {found.size} bytes"
    if not oldest and noted.extents is not None and noted.extents != found.extents:
        return "does not have its holes where they were: a copy of a diff layer has to keep all of them, and make none"
    if found.size != noted.size or not is_same_time(noted.mtime_ns, found.mtime_ns):
        return "was written since it was noted"
    if not oldest and noted.extents is None and noted.mtime_ns != found.mtime_ns:
        return "may be a copy, of which nobody knows whether it has its holes where they were"
    return None


def is_proven(noted: LayerMark, found: LayerMark, *, oldest: bool) -> bool | None:
    """Return whether what was read of a whole layer is what was noted; None where nothing tells."""
    if found.size != noted.size or (not oldest and noted.extents not in (None, found.extents)):
        return False
    if noted.content is not None:
        return noted.content == found.content
    return True if difference(noted, found, oldest=oldest) is None else None


def proofs(noted: Sequence[LayerMark], found: Sequence[LayerMark]) -> list[bool | None]:
    """Return of each layer, newest first, what `is_proven` says; None where none was noted."""
    if len(noted) != len(found):
        return [None] * len(found)
    pairs = list(zip(noted, found, strict=True))
    return [is_proven(one, other, oldest=number == len(pairs)) for number, (one, other) in enumerate(pairs, 1)]


def marks_of(layers: Sequence[str], marks: Sequence[LayerMark]) -> Mapping[str, LayerMark]:
    """Return what was noted of each layer; nothing of those of a record that is older than marks are."""
    return dict(zip(layers, marks, strict=False))
