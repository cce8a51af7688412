"""hypeman's hot-page lists: `HPL1` files, which name a page by its memory region and its offset there.

The format is that of lib/uffd/hotpages.go in kernel/hypeman, of its pull request 218: the magic, the number of pages,
then for each page the index of its region in the VMM's handshake and its offset in bytes; all numbers are the unsigned
varints of Go's encoding/binary. It knows neither the memory image nor the page size that it was recorded with.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from supervisor.uffd.handshake import Mapping

MAGIC = b"HPL1"

_VARINT_BYTES = 10
_VARINT_LIMIT = 1 << 64


class RegionPage(NamedTuple):
    """A page at `offset` bytes into the region that the handshake has as number `region`."""

    region: int
    offset: int


def read_hpl1(data: bytes) -> tuple[RegionPage, ...]:
    """The pages of a list, ascending as hypeman saves them; ValueError with the reason when these bytes are none."""
    if not data.startswith(MAGIC):
        raise ValueError("its first bytes are not those of hypeman's hot-page list")
    count, position = _varint(data, len(MAGIC), "its number of pages")
    if count > len(data) // 2:
        raise ValueError(f"it tells of {count} pages, and {len(data)} bytes cannot hold them")
    pages = []
    for number in range(count):
        region, position = _varint(data, position, f"the region of its page {number}")
        offset, position = _varint(data, position, f"the offset of its page {number}")
        pages.append(RegionPage(region, offset))
    if position != len(data):
        raise ValueError(f"it has {len(data) - position} bytes behind its last page")
    return tuple(pages)


def image_pages(pages: Iterable[RegionPage], mappings: Sequence[Mapping], page_size: int) -> list[int]:
    """The numbers of these pages in the image that a fork with these mappings has.

    ValueError when one is not aligned to the page size, or in no mapping: the list is of another VM.
    """
    found = []
    for region, offset in pages:
        if offset % page_size:
            raise ValueError(f"its page at {offset:#x} of region {region} is none of {page_size} bytes")
        if region >= len(mappings) or offset >= mappings[region].size:
            raise ValueError(
                f"its page at {offset:#x} of region {region} is in none of the VM's {len(mappings)} regions"
            )
        found.append((mappings[region].offset + offset) // page_size)
    return found


def _varint(data: bytes, position: int, what: str) -> tuple[int, int]:
    """The number that begins at a position, and where it ends."""
    value = 0
    for number, byte in enumerate(data[position : position + _VARINT_BYTES]):
        value |= (byte & 0x7F) << 7 * number
        if byte < 0x80 and value < _VARINT_LIMIT:
            return value, position + number + 1
    raise ValueError(f"{what} is cut off or no number of 64 bits")
