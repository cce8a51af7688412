"""A kernel as it is given, a vmlinux or a distribution's bzImage, made what Firecracker boots: an ELF file.

Every function that takes a path blocks on the disk.
"""

import bz2
import gzip
import lzma
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, Final, cast

from supervisor.concurrency.progress import advance
from supervisor.errors import OperationCancelledError
from supervisor.images.compressed import MOST_MEMORY, Readable
from supervisor.images.disk_room import Room
from supervisor.system.regular_files import new_file

LARGEST_KERNEL: Final = 1 << 30
"""Bytes, as given and as booted; one with all its debug information has some 700 million."""
_PIECE: Final = 1 << 20
_ZSTD_PIECE: Final = 256
"""Bytes of which 8 MiB come at most: a block of 4 says 128 KiB of one byte (RFC 8878, 3.1.1.2)."""
_LZ4: Final = b"\x02\x21\x4c\x18"
_LZ4_BLOCK: Final = 8 << 20
_ELF: Final = b"\x7fELF\x02\x01"
_X86_64: Final = 62

# Of the boot protocol's header: Documentation/arch/x86/boot.rst.
_SECTORS_AT: Final = 0x1F1
_HEADER_AT: Final = 0x202
_VERSION_AT: Final = 0x206
_PAYLOAD_AT: Final = 0x248
_PAYLOAD_VERSION: Final = 0x208


class KernelError(ValueError):
    """It is no kernel that can be booted; the message says why."""


def to_elf(given: Path, target: Path, room: Room) -> str:
    """Write a kernel's ELF file to a new file, and return in words what it was taken out of.

    Raises KernelError, OSError, InsufficientResourcesError. The bytes of what is given count as done as they are read.
    """
    with given.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(_PAYLOAD_AT + 8)
        if head[:4] == b"\x7fELF":
            told, source = "a vmlinux", cast(Readable, _Window(file, 0, size))
        elif head[_HEADER_AT : _HEADER_AT + 4] == b"HdrS":
            told, source = _bzimage(file, head, size)
        elif head[56:60] == b"ARM\x64":
            raise KernelError("it is a kernel for aarch64, and this host is x86-64")
        else:
            raise KernelError("it is neither a vmlinux (ELF) nor a bzImage: take the vmlinuz of a distribution")
        with new_file(target) as out:
            written = 0
            for piece in _pieces(source):
                written += len(piece)
                if written > LARGEST_KERNEL:
                    raise KernelError(f"it has more than {LARGEST_KERNEL >> 20} MiB once it is uncompressed")
                room.take(len(piece))
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
    _check_elf(target)
    return told


class _Window:
    """A part of a file, read from its beginning to its end."""

    def __init__(self, file: IO[bytes], start: int, length: int) -> None:
        self._file = file
        self._left = length
        file.seek(start)

    def read(self, size: int = -1) -> bytes:
        """Return so many bytes more, fewer at the end."""
        data = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(data)
        advance(len(data))
        return data


def _bzimage(file: IO[bytes], head: bytes, size: int) -> tuple[str, Readable]:
    """Return what a bzImage's payload is compressed with, and what its bytes are read from."""
    (version,) = struct.unpack_from("<H", head, _VERSION_AT)
    if version < _PAYLOAD_VERSION or len(head) < _PAYLOAD_AT + 8:
        raise KernelError("it is a bzImage of a kernel before 2.6.26, which does not say where its payload is")
    offset, length = struct.unpack_from("<II", head, _PAYLOAD_AT)
    start = ((head[_SECTORS_AT] or 4) + 1) * 512 + offset
    if not length or start + length > size:
        raise KernelError(f"it is a bzImage whose payload ends at {start + length}, and it has {size} bytes")
    file.seek(start)
    magic = file.read(6)
    for name, begin, opened in _COMPRESSIONS:
        if magic.startswith(begin):
            return f"a bzImage ({name})", opened(_Window(file, start, length))
    raise KernelError(
        f"the payload of its bzImage begins with {magic.hex()}: it is compressed with none of "
        f"{', '.join(name for name, *_ in _COMPRESSIONS)}; take its vmlinux (scripts/extract-vmlinux of the kernel)"
    )


class _OneStream:
    """Reads what one stream has, and nothing of what lies behind it: the size that the kernel's makefiles put there."""

    def __init__(self, window: Readable, decompressor: lzma.LZMADecompressor | bz2.BZ2Decompressor) -> None:
        self._window = window
        self._decompressor = decompressor

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes more, none at the end; raises EOFError where that is cut off."""
        while not self._decompressor.eof:
            given = self._window.read(_PIECE) if self._decompressor.needs_input else b""
            if self._decompressor.needs_input and not given:
                raise EOFError("it ends before its end")
            if data := self._decompressor.decompress(given, size):
                return data
        return b""


class _Zstandard:
    """The same of zstd, whose library bounds what it returns by what it is given alone."""

    def __init__(self, window: Readable) -> None:
        import zstandard

        self._window = window
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=MOST_MEMORY).decompressobj()

    def read(self, size: int, /) -> bytes:
        """Return some bytes more, none at the end; raises EOFError where that is cut off."""
        while not self._decompressor.eof:
            given = self._window.read(_ZSTD_PIECE)
            if not given:
                raise EOFError("it ends before its end")
            if data := self._decompressor.decompress(given):
                return data
        return b""


class _Lz4:
    """The same of lz4's old format, which the kernel takes: blocks of 8 MiB, each behind its length."""

    def __init__(self, window: Readable) -> None:
        self._window = window
        self._begun = False

    def read(self, size: int, /) -> bytes:
        """Return a block more, none at the end; raises EOFError where that is cut off."""
        import lz4.block  # type: ignore[import-untyped]

        if not self._begun:
            self._window.read(len(_LZ4))
            self._begun = True
        length = int.from_bytes(self._window.read(4), "little")
        # What cannot be compressed becomes a little longer than it was.
        block = self._window.read(min(length, 2 * _LZ4_BLOCK))
        if not block:
            # What comes last is no length: it is how much all of it comes to, where the makefiles put that.
            return b""
        if len(block) < length:
            raise EOFError("a block ends before its end, or has no length that one may have")
        return bytes(lz4.block.decompress(block, uncompressed_size=_LZ4_BLOCK))


_COMPRESSIONS: Final[tuple[tuple[str, bytes, Callable[[Any], Readable]], ...]] = (
    ("gzip", b"\x1f\x8b", lambda window: gzip.GzipFile(fileobj=window)),
    ("xz", b"\xfd7zXZ\0", lambda window: _OneStream(window, lzma.LZMADecompressor(memlimit=MOST_MEMORY))),
    ("bzip2", b"BZh", lambda window: _OneStream(window, bz2.BZ2Decompressor())),
    ("lzma", b"\x5d\0\0", lambda window: _OneStream(window, lzma.LZMADecompressor(memlimit=MOST_MEMORY))),
    ("zstd", b"\x28\xb5\x2f\xfd", _Zstandard),
    ("lz4", _LZ4, _Lz4),
    ("nothing", b"\x7fELF", lambda window: window),
)


def _pieces(source: Readable) -> Iterator[bytes]:
    """Yield what there is to read, never much of it at a time, whatever it comes to."""
    while True:
        try:
            piece = source.read(_PIECE)
        except (OperationCancelledError, MemoryError):
            raise
        except Exception as error:
            # Each of the libraries has errors of its own for what is no such stream, and EOFError where it is cut off.
            raise KernelError(f"the payload of its bzImage cannot be uncompressed: {error}") from error
        if not piece:
            return
        yield piece


def _check_elf(path: Path) -> None:
    """Raise KernelError for what is no ELF file of a kernel for x86-64."""
    with path.open("rb") as file:
        head = file.read(64)
    if len(head) < 64 or head[:6] != _ELF:
        raise KernelError("what is in it is no ELF file of 64 bits")
    kind, machine = struct.unpack_from("<HH", head, 16)
    if kind not in (2, 3) or machine != _X86_64:
        raise KernelError(f"what is in it is no program for x86-64 (ELF type {kind}, machine {machine})")
    (segments,) = struct.unpack_from("<H", head, 56)
    if not segments:
        raise KernelError("what is in it has nothing to load: it is a module or an object file, and no kernel")
