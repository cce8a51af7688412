"""A distribution's kernel: the ELF inside its bzImage, and its modules in the order in which they can be loaded."""

import lzma
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tests.harness.firecracker import Unavailable

DECOMPRESSORS: Final[dict[bytes, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": lambda payload: zlib.decompressobj(31).decompress(payload),
    b"\xfd7zXZ": lambda payload: lzma.LZMADecompressor().decompress(payload),
    b"\x28\xb5\x2f\xfd": lambda payload: _by_program("zstd", payload),
    b"\x02\x21\x4c\x18": lambda payload: _by_program("lz4", payload),
}
ELF: Final = b"\x7fELF"


def vmlinux(vmlinuz: Path) -> bytes:
    """Return the ELF that a bzImage unpacks, from the boot protocol's payload_offset on. Raises Unavailable."""
    image = vmlinuz.read_bytes()
    setup_sectors = image[0x1F1] or 4
    offset, length = struct.unpack_from("<II", image, 0x248)
    start = (setup_sectors + 1) * 512 + offset
    payload = image[start : start + length]
    for magic, decompress in DECOMPRESSORS.items():
        if payload.startswith(magic):
            payload = decompress(payload)
    if not payload.startswith(ELF):
        raise Unavailable(f"real Linux guests: {vmlinuz.name} has no ELF that is compressed in a way known here")
    return payload


def modules(root: Path, names: Iterable[str]) -> dict[str, bytes]:
    """Return modules and what they depend on, each before what depends on it; what is built in is left out."""
    known = {path.name.partition(".")[0].replace("-", "_"): path for path in root.rglob("*.ko*")}
    order: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in known and name not in order:
            data = _module(known[name])
            for depends in re.findall(rb"\0depends=([^\0]*)\0", data):
                for other in filter(None, depends.decode().split(",")):
                    visit(other.replace("-", "_"))
            order[name] = data

    for name in names:
        visit(name)
    return order


def _module(path: Path) -> bytes:
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def _by_program(name: str, payload: bytes) -> bytes:
    if shutil.which(name) is None:
        raise Unavailable(f"real Linux guests: {name}, which the kernel is compressed with: apt-get install {name}")
    # What follows the payload makes it exit with an error, once all is written.
    return subprocess.run((name, "-dc"), input=payload, stdout=subprocess.PIPE, check=False).stdout
