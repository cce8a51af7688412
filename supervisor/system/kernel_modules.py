"""Modules of a Linux kernel: what each needs, and in which order they are loaded."""

import gzip
import io
import lzma
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

LARGEST_MODULE: Final = 32 << 20
"""Bytes of one, uncompressed; xfs, one of the largest, has five million with its symbols."""
MOST_BYTES: Final = 64 << 20
"""Of all that are loaded, uncompressed: they are in memory together, here and in the guest; Debian's come to 4 MB."""
SUFFIXES: Final = (".ko", ".ko.xz", ".ko.gz", ".ko.zst")

WANTED: Final = (
    *("virtio_mmio", "virtio_blk", "virtio_rng", "virtio_net", "virtio_balloon", "vmw_vsock_virtio_transport"),
    *("crc32c_generic", "ext4", "overlay", "ptp_kvm", "vmgenid"),
)
"""What a guest under Firecracker may need, where it is not built in; ext4 asks for crc32c by an algorithm's name."""

_FIELD: Final = re.compile(rb"(?<=\0)(depends|softdep)=([^\0]{0,4096})(?=\0)")


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
    one that is built in. Raises ValueError, for more than MOST_BYTES as well.
    """
    found: dict[str, bytes] = {}
    begun: set[str] = set()
    taken = 0
    # Not by a function that calls itself: a chain of modules may be longer than that goes.
    pending: list[tuple[str, bytes, Iterator[str]]] = [("", b"", iter(names))]
    while pending:
        name, data, needed = pending[-1]
        next_name = next((one for one in needed if one and one in files and one not in begun), None)
        if next_name is None:
            found[name] = data
            pending.pop()
            continue
        begun.add(next_name)
        module = uncompressed(files[next_name], read(files[next_name]))
        taken += len(module)
        if taken > MOST_BYTES:
            raise ValueError(f"the modules that are needed have more than {MOST_BYTES >> 20} MiB: strip them")
        pending.append((next_name, module, _needed(module)))
    del found[""]
    return list(found.items())


def _needed(module: bytes) -> Iterator[str]:
    """Yield the names as they are read: a module of nothing else has millions."""
    for field in _FIELD.finditer(module):
        names = field[2].decode("ascii", "replace").replace("-", "_")
        if field[1] == b"depends":
            yield from names.split(",")
        elif names.startswith("pre:"):
            yield from names.removeprefix("pre:").split()
