"""Layers on the disk beside what was noted of them. Every function blocks on the disk."""

import hashlib
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from supervisor.errors import LayerError, check_descriptors
from supervisor.remedies import Remedy
from supervisor.store.layer_marks import LayerMark, difference
from supervisor.system.regular_files import open_regular
from supervisor.uffd.memory_image import GRANULE_BYTES, data_extents

DIGEST_BYTES: Final = 16
_EXTENT: Final = struct.Struct("<QQ")


def take_marks(name: str, layers: Iterable[Path]) -> tuple[LayerMark, ...]:
    """Return what is to be noted of the layers of the instance `name`; raises LayerError."""
    found = []
    for layer in layers:
        with opened_layer(name, layer) as fd:
            found.append(mark_of(fd))
    return tuple(found)


def check_layers(name: str, layers: Sequence[Path], noted: Sequence[LayerMark]) -> None:
    """Raise LayerError for a layer of the instance `name`, newest first, that is not what was noted, and no copy of it.

    Nothing is noted in the records of former supervisors. What was written so that size and mtime are as they were is
    not found out: that takes a reading of all of it.
    """
    for layer, one in zip(layers, noted, strict=False):
        oldest = layer == layers[-1]
        with opened_layer(name, layer) as fd:
            found = mark_of(fd, with_extents=not oldest and one.extents is not None)
        if (problem := difference(one, found, oldest=oldest)) is not None:
            told = f"noted are {one}, and there are {found}"
            remedy = Remedy.ACCEPT if found.size == one.size else None
            raise LayerError(
                f"{name}: layer {layer} {problem}: {told}; put it back as it was", remedy=remedy, parameter=name
            )


def mark_of(fd: int, *, with_extents: bool = True) -> LayerMark:
    """Return what tells an open layer from any other; raises OSError."""
    status = os.fstat(fd)
    if not with_extents:
        return LayerMark(status.st_size, status.st_mtime_ns)
    digest, pages = hashlib.blake2b(digest_size=DIGEST_BYTES), 0
    for start, end in data_extents(fd, status.st_size):
        digest.update(_EXTENT.pack(start, end))
        pages += (end - start) // GRANULE_BYTES
    return LayerMark(status.st_size, status.st_mtime_ns, pages, digest.hexdigest())


@contextmanager
def opened_layer(name: str, path: Path) -> Iterator[int]:
    """Open a layer for the body; LayerError where that, or the body, fails."""
    try:
        fd = open_regular(path)
    except FileNotFoundError as error:
        raise LayerError(f"{name}: layer {path} is missing: {error.strerror}; put it back") from error
    except OSError as error:
        check_descriptors(error, f"{name}: layer {path}")
        raise LayerError(f"{name}: layer {path} cannot be opened: {error.strerror}; put it back") from error
    try:
        yield fd
    except OSError as error:
        raise LayerError(f"{name}: layer {path} cannot be read: {error.strerror}; put it back") from error
    finally:
        os.close(fd)
