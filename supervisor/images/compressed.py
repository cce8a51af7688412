"""Compressed streams that somebody else has made, read so that they take little memory, whatever they are.

A bzip2 of 45 bytes becomes 45 MB, and an xz may ask for a dictionary of 4 GiB.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable
from typing import Final, Protocol

MOST_MEMORY: Final = 256 << 20
"""Bytes that a stream may ask for to be uncompressed; the kernel's own makefiles take a dictionary of 128 MiB."""
LONGEST_MAGIC: Final = 6
_PIECE: Final = 64 << 10


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes: ...


class CompressedError(ValueError):
    """It is no such stream, is cut off, or asks for too much memory."""


class _Decompressor(Protocol):
    """As bz2 and lzma have one."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, /, max_length: int) -> bytes: ...


class _Gzip:
    """The same of gzip."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(16 + zlib.MAX_WBITS)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, /, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)


_BY_MAGIC: Final[tuple[tuple[bytes, Callable[[], _Decompressor]], ...]] = (
    (b"\x1f\x8b", _Gzip),
    (b"BZh", bz2.BZ2Decompressor),
    (b"\xfd7zXZ\0", lambda: lzma.LZMADecompressor(memlimit=MOST_MEMORY)),
    (b"\x5d\0\0", lambda: lzma.LZMADecompressor(memlimit=MOST_MEMORY)),
)


def uncompressed(head: bytes, source: Readable, look: Callable[[], object]) -> Readable:
    """Return what is to be read of a source that begins with `head`: what its streams become, or itself without one.

    `look` is called for each piece of that, and may raise. Reading raises CompressedError, and what `source` raises.
    """
    made = next((make for magic, make in _BY_MAGIC if head.startswith(magic)), None)
    return source if made is None else _Streams(source, made, look)


class _Streams:
    """What streams behind each other become, as pbzip2 and pigz write them."""

    def __init__(self, source: Readable, make: Callable[[], _Decompressor], look: Callable[[], object]) -> None:
        self._source = source
        self._make = make
        self._look = look
        self._stream = make()

    def read(self, size: int, /) -> bytes:
        """Return at most so many bytes more, none at the end."""
        while True:
            self._look()
            given = b""
            if self._stream.eof:
                given = self._stream.unused_data or self._source.read(_PIECE)
                # Tapes, and some programs, fill up with zeros.
                if not given.strip(b"\0"):
                    return b""
                self._stream = self._make()
            elif self._stream.needs_input:
                given = self._source.read(_PIECE)
                if not given:
                    raise CompressedError("it is cut off")
            try:
                data = self._stream.decompress(given, size)
            except (lzma.LZMAError, zlib.error, OSError, EOFError, MemoryError) as error:
                raise CompressedError(f"it cannot be uncompressed: {error}") from error
            if data:
                return data
