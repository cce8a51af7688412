"""A snapshot read whole, from its state-file to the last byte of its layers. Every function blocks on the disk."""

import errno
import hashlib
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from supervisor.concurrency.progress import step
from supervisor.errors import LayerError
from supervisor.models import HypervisorName
from supervisor.snapshots.layer_checks import DIGEST_BYTES, mark_of, opened_layer
from supervisor.store.layer_marks import LayerMark
from supervisor.store.records import SnapshotFiles
from supervisor.uffd.memory_image import data_extents
from supervisor.vmm.state_file import read_state_header

CHUNK_BYTES: Final = 1 << 20
_CHUNK: Final = struct.Struct("<QQ")  # offset, bytes
_ZERO: Final = bytes(CHUNK_BYTES)


class Examination:
    """Reads layers of `size` bytes of the instance `name`, each once whatever its names.

    `read` hears of so many bytes more; what it raises ends the reading.
    """

    def __init__(self, name: str, size: int, read: Callable[[int], object]) -> None:
        self._name = name
        self._size = size
        self._read = read
        self._found: dict[tuple[int, int], LayerMark] = {}

    def __call__(self, layer: Path) -> LayerMark:
        """Return the mark of a layer; LayerError where it is no file of that size, or cannot be read to its end."""
        with opened_layer(self._name, layer) as fd:
            status = os.fstat(fd)
            file = status.st_dev, status.st_ino
            if file not in self._found:
                step("read layer")
                self._found[file] = self._examined(layer, fd)
            return self._found[file]

    def _examined(self, layer: Path, fd: int) -> LayerMark:
        before = mark_of(fd)
        if before.size != self._size:
            raise LayerError(
                f"{self._name}: layer {layer} has {before.size} bytes, and its memory {self._size}; put it back"
            )
        content = self._content(fd)
        if mark_of(fd) != before:
            raise LayerError(f"{self._name}: layer {layer} was written while it was read; ask again when it is not")
        return before._replace(content=content)

    def _content(self, fd: int) -> str:
        """Return the digest of what there is to read, in which holes and zeros are the same."""
        digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        past = 0
        for start, end in data_extents(fd, self._size):
            # Whole chunks, each once: where in one the data begins makes no difference.
            for offset in range(max(start - start % CHUNK_BYTES, past), min(end, self._size), CHUNK_BYTES):
                chunk = os.pread(fd, CHUNK_BYTES, offset)
                if len(chunk) != min(CHUNK_BYTES, self._size - offset):
                    raise OSError(errno.EIO, f"it ends at byte {offset + len(chunk)}")
                if chunk != _ZERO[: len(chunk)]:
                    digest.update(_CHUNK.pack(offset, len(chunk)))
                    digest.update(chunk)
                past = offset + CHUNK_BYTES
                self._read(len(chunk))
        return digest.hexdigest()


def check_state(name: str, directory: Path, hypervisor: HypervisorName, snapshot: SnapshotFiles, size: int) -> None:
    """Raise LayerError where the state-file in an instance's directory is not that of its snapshot."""
    try:
        header = read_state_header(directory / snapshot.state)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise LayerError(f"{name}: its {snapshot.state} cannot be used: {reason}; put it back") from error
    found = f"{header.hypervisor}, version {header.snapshot_version}, {header.size_bytes or size} bytes"
    noted = f"{hypervisor}, version {snapshot.snapshot_version}, {size} bytes"
    if found != noted:
        raise LayerError(
            f"{name}: its {snapshot.state} is another one: noted is {noted}, and there is {found}; put it back"
        )
