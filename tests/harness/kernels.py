"""Kernels to build images of: pagewalker as it is, and as the payload of a bzImage."""

import bz2
import gzip
import lzma
import struct
from collections.abc import Callable
from typing import Final

import lz4.block  # type: ignore[import-untyped]
import zstandard

from supervisor.guests.boot import kernel_path

SETUP_SECTORS: Final = 4
OFFSET: Final = 0x2C4
"""Of the payload, from the end of the setup code."""


def _lz4(data: bytes) -> bytes:
    out = b"\x02\x21\x4c\x18"
    for start in range(0, len(data), 8 << 20):
        block = lz4.block.compress(data[start : start + (8 << 20)], store_size=False)
        out += struct.pack("<I", len(block)) + block
    return out


COMPRESSIONS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "gzip": gzip.compress,
    "xz": lambda data: lzma.compress(data, check=lzma.CHECK_CRC32),
    "bzip2": bz2.compress,
    "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": _lz4,
    "nothing": bytes,
}


def vmlinux() -> bytes:
    """Return the ELF of a kernel that boots."""
    return kernel_path().read_bytes()


def bzimage(payload: bytes, *, version: int = 0x20F, size_behind: bool = True, length: int | None = None) -> bytes:
    """Return a bzImage with a payload; its size lies behind it, as the kernel's makefiles put it."""
    told = payload + struct.pack("<I", 1 << 20) * size_behind
    head = bytearray((SETUP_SECTORS + 1) * 512 + OFFSET)
    head[0x1F1] = SETUP_SECTORS
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, version)
    struct.pack_into("<II", head, 0x248, OFFSET, len(told) if length is None else length)
    return bytes(head) + told
