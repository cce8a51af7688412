"""Modules of a Linux kernel: what each needs, and in which order they are loaded."""

import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Final

LARGEST_MODULE: Final = 32 << 20
"""Bytes of one, uncompressed; xfs, one of the largest, has five million with its symbols."""
SUFFIXES: Final = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")

WANTED: Final = (
    *("virtio_mmio", "virtio_blk", "virtio_rng", "virtio_net", "virtio_balloon", "vmw_vsock_virtio_transport"),
    *("crc32c_generic", "ext4", "overlay", "ptp_kvm", "vmgenid"),
)
"""What a guest under Firecracker may need, where it is not built in; ext4 asks for crc32c by an algorithm's name."""

_FIELD: Final = re.compile(rb"\0(depends|softdep)=([^\0]*)\0")


def module_name(file: str) -> str | None:
    """Return the name of the module that a file's name is of; None where it is none."""
    name = file.rpartition("/")[2]
    suffix = next((one for one in SUFFIXES if name.endswith(one)), None)
    return None if suffix is None else name.removesuffix(suffix).replace("-", "_")


def uncompressed(file: str, data: bytes) -> bytes:
    """Return a module's bytes; raises ValueError where they cannot be had of what is in its file."""
    try:
        if file.endswith(".xz"):
            out = lzma.LZMADecompressor().decompress(data, LARGEST_MODULE + 1)
        elif file.endswith(".gz"):
            with gzip.GzipFile(fileobj=io.BytesIO(data)) as opened:
                out = opened.read(LARGEST_MODULE + 1)
        elif file.endswith(".zst"):
            # Not where nothing is compressed so: page servers and VMMs are of the standard library only.
            import zstandard

            with zstandard.ZstdDecompressor().stream_reader(data) as reader:
                out = reader.read(LARGEST_MODULE + 1)
        else:
            out = data
    except Exception as error:
        raise ValueError(f"{file}: it cannot be uncompressed: {error}") from error
    if len(out) > LARGEST_MODULE or out[:4] != b"\x7fELF":
        raise ValueError(f"{file}: it is no kernel module, or has more than {LARGEST_MODULE >> 20} MiB")
    return out


def in_order(names: Iterable[str], files: Mapping[str, str], read: Callable[[str], bytes]) -> list[tuple[str, bytes]]:
    """Return these modules with all that they need, each behind what it needs: its name and its bytes.

    `files` has a file for each name that there is, which `read` reads; a module that is not there is passed over, as
    one that is built in. Raises ValueError.
    """
    found: dict[str, bytes] = {}
    begun: set[str] = set()

    def visit(name: str) -> None:
        if name in begun or name not in files:
            return
        begun.add(name)
        data = uncompressed(files[name], read(files[name]))
        for needed in _needed(data):
            visit(needed)
        found[name] = data

    for name in names:
        visit(name)
    return list(found.items())


def _needed(module: bytes) -> list[str]:
    found = []
    # Each field ends with a NUL, which is where the next one begins.
    for kind, names in _FIELD.findall(module.replace(b"\0", b"\0\0")):
        split = names.decode("ascii", "replace").replace("-", "_")
        if kind == b"depends":
            found += [name for name in split.split(",") if name]
        elif split.startswith("pre:"):
            found += split.removeprefix("pre:").split()
    return found
