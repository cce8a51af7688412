"""hypeman's HPL1 files as its own program writes them."""

from supervisor.uffd.hypeman_hot_pages import MAGIC, RegionPage


def varint(value: int) -> bytes:
    """A number as binary.PutUvarint of Go writes it: groups of seven bits, lowest first, all but the last marked."""
    groups = bytearray()
    while value >= 0x80:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def hpl1(pages: list[RegionPage]) -> bytes:
    """The file that HotPageList.Save makes of these pages."""
    return MAGIC + varint(len(pages)) + b"".join(varint(number) for page in pages for number in page)
