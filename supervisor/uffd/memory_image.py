"""A memory image: a chain of sparse mem-files (layers), and which of them every page comes from."""

import errno
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from supervisor.errors import PageServerError
from supervisor.system.regular_files import open_regular
from supervisor.system.sparse_files import extents
from supervisor.uffd import kernel

GRANULE_BYTES = 4096
"""Layers are told apart in these units, whatever the page size: KVM's dirty log, which a diff snapshot is written from,
has 4 KiB pages also under huge ones."""

NO_LAYER = -1

_COPIES_KEEP_NS = (1, 100, 10**3, 10**6, 10**9, 2 * 10**9)
"""Units (ns) in which copies keep an mtime: exactly; as NTFS has it; microseconds and milliseconds of network file
systems and archives; seconds of tar, cpio and rsync; the two of zip and FAT."""
_DOUBLE_NS = 240
"""By how much a time in seconds is off as a double, which Python's tarfile has: its last bit is 2**-22 s these days."""


def is_same_time(noted_ns: int, found_ns: int) -> bool:
    """Whether a file that was written at `noted_ns` may have this mtime when it is a copy.

    A write leaves the time that it is made at, to the nanosecond: later than what was noted, and not cut off.
    """
    cut = (noted_ns - noted_ns % unit for unit in _COPIES_KEEP_NS)
    return found_ns in cut or abs(found_ns - noted_ns) <= _DOUBLE_NS


class LayerIdentity(NamedTuple):
    """What tells a layer from any other file, and from itself had it been written again."""

    size: int
    mtime_ns: int
    inode: int
    device: int

    @classmethod
    def of(cls, status: os.stat_result) -> "LayerIdentity":
        """The identity of a file by its status."""
        return cls(status.st_size, status.st_mtime_ns, status.st_ino, status.st_dev)

    def may_be_copy(self, other: "LayerIdentity") -> bool:
        """Whether this file may be the other one, or a copy that was made of it."""
        return self.size == other.size and is_same_time(other.mtime_ns, self.mtime_ns)


def data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a sparse file has data: [start, end) in bytes, ascending, rounded outwards to granules.

    A granule with any data is the layer's: snapshots write whole pages, but a file system's blocks may be smaller.
    """
    start = end = 0
    for first, last in extents(fd, size):
        low, high = first - first % GRANULE_BYTES, -(-last // GRANULE_BYTES) * GRANULE_BYTES
        if low > end:
            if end:
                yield start, end
            start = low
        end = high
    if end:
        yield start, end


class IntervalMap(NamedTuple):
    """The image as maximal intervals: `owners[i]` has the bytes from `starts[i]` to the next start.

    An owner is the number of a layer, or NO_LAYER where the image is zero.
    """

    starts: list[int]
    owners: list[int]


def resolve(layers: Sequence[Iterable[tuple[int, int]]], size: int) -> IntervalMap:
    """The interval map of layers given by their data extents, newest first; those of one layer must not overlap."""
    # Every border flips its layer's bit in a mask of the layers that have data here; the newest is its lowest bit.
    borders = sorted(
        (border, 1 << number) for number, extents in enumerate(layers) for extent in extents for border in extent
    )
    starts, owners, active = [0], [NO_LAYER], 0
    for border, bit in borders:
        active ^= bit
        if starts[-1] == border:
            starts.pop()
            owners.pop()
        owner = (active & -active).bit_length() - 1
        if not owners or owners[-1] != owner:
            starts.append(border)
            owners.append(owner)
    while starts and starts[-1] >= size:
        starts.pop()
        owners.pop()
    return IntervalMap(starts, owners)


class Layer(NamedTuple):
    """One file of the chain, open and mapped."""

    path: Path
    fd: int
    identity: LayerIdentity
    address: int


class MemoryImage:
    """The layers of one template, open and mapped for reading.

    The open descriptors keep the layers' contents alive whatever happens to their names.
    """

    def __init__(self, paths: Sequence[Path], size: int, descriptors: Sequence[int] | None = None) -> None:
        """Open layers, newest first, or take descriptors of them, which are its own then.

        PageServerError when one is missing or is not `size` bytes long.
        """
        self.size = size
        self.layers: tuple[Layer, ...] = ()
        try:
            for path, fd in zip(paths, descriptors or (open_layer(one, size) for one in paths), strict=True):
                self.layers += (_mapped(path, fd, size),)
        except PageServerError:
            self.close()
            raise
        self.identity = tuple(layer.identity for layer in self.layers)
        intervals = resolve([data_extents(layer.fd, size) for layer in self.layers], size)
        self._starts = intervals.starts
        self._ends = [*intervals.starts[1:], size]
        self._addresses = [0 if owner == NO_LAYER else self.layers[owner].address for owner in intervals.owners]
        self._owners = intervals.owners

    def locate(self, offset: int) -> tuple[int, int, int]:
        """Where the byte at `offset` comes from, and from where on and how far that holds: (address, start, end).

        The bytes [start, end) of the image are at address + offset of this process; address 0 says that they are zero.
        """
        interval = bisect_right(self._starts, offset) - 1
        return self._addresses[interval], self._starts[interval], self._ends[interval]

    @property
    def interval_count(self) -> int:
        """Into how many intervals of one owner the image falls."""
        return len(self._starts)

    def read_into(self, target: memoryview, offset: int) -> None:
        """Compose the bytes from `offset` on out of all layers; OSError when a layer cannot be read."""
        position, end = offset, offset + len(target)
        while position < end:
            interval = bisect_right(self._starts, position) - 1
            stop = min(self._ends[interval], end)
            part = target[position - offset : stop - offset]
            if self._owners[interval] == NO_LAYER:
                part[:] = bytes(len(part))
            elif os.preadv(self.layers[self._owners[interval]].fd, [part], position) != len(part):
                raise OSError(errno.EFAULT, "a layer is shorter than it was")
            position = stop

    def verify(self, named: Sequence[LayerIdentity] = ()) -> None:
        """PageServerError when a layer was truncated or written since it was opened, or is not what has its name.

        `named` is what is at the layers' paths, where that is known: a page server may not look there.
        """
        for layer in self.layers:
            _check(layer)
        for layer, found in zip(self.layers, named, strict=False):
            if found != layer.identity:
                raise PageServerError(f"layer {layer.path} was replaced by another file under its page server")

    def read_ahead(self, start: int, end: int) -> None:
        """Have the kernel read [start, end) of every layer into the page cache, without waiting for it."""
        for layer in self.layers:
            os.posix_fadvise(layer.fd, start, end - start, os.POSIX_FADV_WILLNEED)

    def close(self) -> None:
        """Unmap and close all layers."""
        for layer in self.layers:
            kernel.unmap(layer.address, layer.identity.size)
            os.close(layer.fd)
        self.layers = ()


def identities(paths: Iterable[Path]) -> tuple[LayerIdentity, ...]:
    """What is at the paths of layers; PageServerError where one is missing."""
    found = []
    for path in paths:
        try:
            found.append(LayerIdentity.of(path.stat()))
        except OSError as error:
            raise PageServerError(f"layer {path} is missing: {error.strerror}") from error
    return tuple(found)


def open_layer(path: Path, size: int) -> int:
    """A descriptor of a layer, for reading; PageServerError where it cannot be opened or is not `size` bytes long."""
    try:
        fd = open_regular(path)
    except OSError as error:
        raise PageServerError(f"layer {path} cannot be opened: {error.strerror}") from error
    try:
        _check_size(path, os.fstat(fd).st_size, size)
    except PageServerError:
        os.close(fd)
        raise
    return fd


def _check_size(path: Path, found: int, size: int) -> None:
    if found != size:
        raise PageServerError(f"layer {path} has {found} bytes and the memory {size}: it is truncated or of another VM")


def _mapped(path: Path, fd: int, size: int) -> Layer:
    try:
        identity = LayerIdentity.of(os.fstat(fd))
        _check_size(path, identity.size, size)
        return Layer(path, fd, identity, kernel.map_read_only(fd, size))
    except OSError as error:
        os.close(fd)
        raise PageServerError(f"layer {path} cannot be mapped: {error.strerror}") from error
    except PageServerError:
        os.close(fd)
        raise


def _check(layer: Layer) -> None:
    held = LayerIdentity.of(os.fstat(layer.fd))
    if held.size < layer.identity.size:
        raise PageServerError(f"layer {layer.path} was truncated to {held.size} bytes under its page server")
    if held != layer.identity:
        raise PageServerError(f"layer {layer.path} was written under its page server, and a layer never is")
