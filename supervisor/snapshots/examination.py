"""A snapshot read whole, from its state-file to the last byte of its layers. Every function blocks on the disk."""

import errno
import hashlib
import os
import struct
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Final

from supervisor.concurrency.progress import step
from supervisor.errors import LayerError
from supervisor.snapshots import state_checks
from supervisor.snapshots.layer_checks import DIGEST_BYTES, mark_of, opened_layer
from supervisor.snapshots.layers import own_snapshot
from supervisor.store.layer_marks import LayerMark
from supervisor.store.records import InstanceRecord
from supervisor.system.sparse_files import opened
from supervisor.uffd.memory_image import data_extents

CHUNK_BYTES: Final = 1 << 20
_CHUNK: Final = struct.Struct("<QQ")  # offset, bytes
_ZERO: Final = bytes(CHUNK_BYTES)


class Examination:
    """Reads layers of the instance `name`, each once whatever its names; all have the same one of `sizes`, in bytes.

    `read` hears of so many bytes more; what it raises ends the reading.
    """

    def __init__(self, name: str, sizes: Collection[int], read: Callable[[int], object]) -> None:
        self._name = name
        self._sizes = sizes
        self._read = read
        self._found: dict[tuple[int, int], LayerMark] = {}

    def __call__(self, layer: Path) -> LayerMark:
        """Return the mark of a layer; LayerError where it is no file of such a size, or cannot be read to its end."""
        with opened_layer(self._name, layer) as fd:
            status = os.fstat(fd)
            file = status.st_dev, status.st_ino
            if file not in self._found:
                step("read layer")
                self._found[file] = self._examined(layer, fd)
            return self._found[file]

    def _examined(self, layer: Path, fd: int) -> LayerMark:
        before = mark_of(fd)
        if before.size not in self._sizes:
            expected = " or ".join(map(str, sorted(self._sizes)))
            raise LayerError(
                f"{self._name}: layer {layer} has {before.size} bytes, and its memory {expected}; put it back"
            )
        self._sizes = (before.size,)
        content = self._content(fd, before.size)
        if mark_of(fd) != before:
            raise LayerError(f"{self._name}: layer {layer} was written while it was read; ask again when it is not")
        return before._replace(content=content)

    def _content(self, fd: int, size: int) -> str:
        """Return the digest of what there is to read, in which holes and zeros are the same."""
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        past = 0
        for start, end in data_extents(fd, size):
            # Whole chunks, each once: where in one the data begins makes no difference.
            for offset in range(max(start - start % CHUNK_BYTES, past), min(end, size), CHUNK_BYTES):
                chunk = os.pread(fd, CHUNK_BYTES, offset)
                if len(chunk) != min(CHUNK_BYTES, size - offset):
                    raise OSError(errno.EIO, f"it ends at byte {offset + len(chunk)}")
                if chunk != _ZERO[: len(chunk)]:
                    digest.update(_CHUNK.pack(offset, len(chunk)))
                    digest.update(chunk)
                past = offset + CHUNK_BYTES
                self._read(len(chunk))
        return digest.hexdigest()


def check_state(directory: Path, record: InstanceRecord) -> None:
    """Raise LayerError where the state-file in an instance's directory is not that of its snapshot."""
    snapshot = own_snapshot(record)
    try:
        with opened(directory / snapshot.state) as fd:
            state_checks.check_state(fd, record, snapshot)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise LayerError(f"{record.name}: its {snapshot.state} cannot be used: {reason}; put it back") from error
