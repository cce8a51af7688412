"""How much memory a VM is to have, as an operator writes it."""

import re
from typing import Final

import psutil

from supervisor.errors import InvalidSizeError
from supervisor.models.base import MIB

MINIMUM: Final = 32 * MIB
"""Bytes; Firecracker starts with less, and no guest does."""

LARGEST_DISK: Final = 1 << 42
"""Bytes of a disk that is made here; it is a file of which little need be on the host's disk."""

_UNITS: Final = {"": 1, "K": 1 << 10, "M": MIB, "G": 1 << 30, "T": 1 << 40}
_SIZE: Final = re.compile(r"([0-9]{1,15}) ?([KMGT]?)(?:i?B)?", re.IGNORECASE | re.ASCII)


def parse_disk_size(text: str) -> int:
    """Return the bytes of a disk, written as memory is; raises InvalidSizeError."""
    matched = _SIZE.fullmatch(text.strip())
    size = int(matched[1]) * _UNITS[matched[2].upper()] if matched else 0
    if not MIB <= size <= LARGEST_DISK or size % MIB:
        raise InvalidSizeError(
            f"disk size {text[:40]!r} is refused: write a whole number of MiB with its unit, such as 512MB or 4G"
        )
    return size


def parse_size(text: str, maximum: int | None = None) -> int:
    """Return the bytes that a text like `128MB`, `512 MiB` or `1G` means; a unit is a power of 1024, as hypeman's are.

    `maximum` is in bytes, and without it all that the host has. Raises InvalidSizeError unless the size is a whole
    number of MiB in the bounds.
    """
    maximum = psutil.virtual_memory().total if maximum is None else maximum
    matched = _SIZE.fullmatch(text.strip())
    if matched is None:
        raise InvalidSizeError(f"size {text[:40]!r} is refused: write a number with a unit, such as 128MB or 1G")
    size = int(matched[1]) * _UNITS[matched[2].upper()]
    bounds = f"{MINIMUM // MIB}MB to {maximum // MIB}MB"
    if size < MINIMUM <= size * MIB <= maximum and matched[0].isdecimal():
        raise InvalidSizeError(f"size {text} is refused: without a unit it is read as bytes; write {size}MB")
    if not MINIMUM <= size <= maximum:
        raise InvalidSizeError(f"size {text} is refused: a VM may have {bounds} on this host")
    if size % MIB:
        raise InvalidSizeError(f"size {text} is refused: it has to be a whole number of MiB, {bounds}")
    return size
