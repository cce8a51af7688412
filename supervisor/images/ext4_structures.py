"""What ext4 has on the disk, as bytes (Documentation/filesystems/ext4). Pure."""

import stat
import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

BLOCK: Final = 4096
BLOCKS_IN_GROUP: Final = 8 * BLOCK
"""As many as a block of bits can tell of."""
INODE_BYTES: Final = 256
DESCRIPTOR_BYTES: Final = 32
SUPERBLOCK_AT: Final = 1024

DATA_AT: Final = 0x28
"""Where an inode has its extents, its link's target, or its device's number, and LINKS_AT how many names it has."""
LINKS_AT: Final = 0x1A
IN_INODE_BYTES: Final = 60
EXTENTS: Final = 0x80000
"""EXT4_EXTENTS_FL."""
_HEAD: Final = "<HHIIIIIHHIII60sIIIIHHHHHHHHIIIIII"
_EXTRA_BYTES: Final = 32
EXTENDED_BYTES: Final = INODE_BYTES - struct.calcsize(_HEAD) - 4
"""Of an inode, for extended attributes."""
NO_ATTRIBUTES: Final = bytes(EXTENDED_BYTES)
_EXTENT_MAGIC: Final = 0xF30A
_MOST_IN_EXTENT: Final = 1 << 15
_IN_BLOCK: Final = (BLOCK - 12) // 12
_IN_INODE: Final = (IN_INODE_BYTES - 12) // 12

# Of directories' entries; the places are those of the three bits that a name takes with its inode's number.
KIND_OF_CODE: Final = tuple(
    kind >> 12
    for kind in (0, stat.S_IFREG, stat.S_IFDIR, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK, stat.S_IFLNK)
)
CODES: Final = {kind << 12: code for code, kind in enumerate(KIND_OF_CODE)}

_COMPATIBLE: Final = 0x8 | 0x20 | 0x200
"""ext_attr, dir_index, sparse_super2: the superblock has no copies, since the data lie there."""
_HAS_JOURNAL: Final = 0x4
_INCOMPATIBLE: Final = 0x2 | 0x40 | 0x200
"""filetype, extents, flex_bg."""
_READ_ONLY_COMPATIBLE: Final = 0x1 | 0x2 | 0x8 | 0x20 | 0x40
"""sparse_super, large_file, huge_file, dir_nlink, extra_isize."""
_XATTR_MAGIC: Final = 0xEA020000
_XATTR_PREFIXES: Final = {"user.": 1, "trusted.": 4, "security.": 6}


class Extent(NamedTuple):
    """Blocks of a file that lie behind each other: its own first one, how many, and where they are."""

    first: int
    length: int
    block: int


class Times(NamedTuple):
    """Seconds since 1970 of a file's last change."""

    mtime: int


def in_blocks(size: int, block: int = BLOCK) -> int:
    """Return how many blocks so many bytes take."""
    return -(-size // block)


def append(extents: list[Extent], added: Extent) -> None:
    """Add blocks to those of a file, as part of its last ones where they lie behind them."""
    while added.length:
        last = extents[-1] if extents else None
        if last is not None and (last.first + last.length, last.block + last.length) == (added.first, added.block):
            taken = min(added.length, _MOST_IN_EXTENT - last.length)
            if taken:
                extents[-1] = last._replace(length=last.length + taken)
                added = Extent(added.first + taken, added.length - taken, added.block + taken)
                continue
        taken = min(added.length, _MOST_IN_EXTENT)
        extents.append(added._replace(length=taken))
        added = Extent(added.first + taken, added.length - taken, added.block + taken)


def extent_tree(extents: Sequence[Extent], allocate: Callable[[int], int]) -> tuple[bytes, list[tuple[int, bytes]]]:
    """Return what an inode has of a file's extents, and the blocks that hold what does not fit there."""
    entries = [
        (one.first, struct.pack("<IHHI", one.first, one.length, one.block >> 32, one.block & _LOW)) for one in extents
    ]
    nodes: list[tuple[int, bytes]] = []
    depth = 0
    while len(entries) > _IN_INODE:
        above = []
        for start in range(0, len(entries), _IN_BLOCK):
            part = entries[start : start + _IN_BLOCK]
            block = allocate(1)
            nodes.append((block, _node(part, _IN_BLOCK, depth).ljust(BLOCK, b"\0")))
            above.append((part[0][0], struct.pack("<IIHH", part[0][0], block & _LOW, block >> 32, 0)))
        entries, depth = above, depth + 1
    return _node(entries, _IN_INODE, depth), nodes


def inode(
    mode: int, owner: tuple[int, int], size: int, times: Times, data: bytes, blocks: int, links: int, flags: int
) -> bytes:
    """Return an inode up to its extended attributes; `data` is what it has in place of blocks, or of where they are."""
    uid, gid = owner
    low, extra = _time(times.mtime)
    sectors = blocks * (BLOCK // 512)
    return struct.pack(
        _HEAD,
        *(mode, uid & 0xFFFF, size & _LOW, low, low, low, 0, gid & 0xFFFF, links, sectors & _LOW, flags, 0),
        *(data, 0, 0, size >> 32, 0, sectors >> 32, 0, uid >> 16 & 0xFFFF, gid >> 16 & 0xFFFF, 0, 0),
        *(_EXTRA_BYTES, 0, extra, extra, extra, low, extra, 0),
    ) + bytes(4)


def extended_attributes(given: Iterable[tuple[str, bytes]]) -> bytes:
    """Return what of a file's extended attributes fits into the rest of its inode: of security.capability, all."""
    # A hash of 0 is none: ext2fs_ext_attr_hash_entry is compared where there is one only.
    entries, values, left = b"", b"", EXTENDED_BYTES - 8
    for name, value in sorted(given):
        prefix = next((one for one in _XATTR_PREFIXES if name.startswith(one)), None)
        if prefix is None:
            continue
        short = name.removeprefix(prefix).encode("utf-8", "surrogateescape")
        padded = value + bytes(-len(value) % 4)
        needed = 16 + len(short) + -len(short) % 4 + len(padded)
        if not short or needed > left:
            continue
        left -= needed
        values = padded + values
        offset = EXTENDED_BYTES - 4 - len(values)
        head = struct.pack("<BBHIII", len(short), _XATTR_PREFIXES[prefix], offset, 0, len(value), 0)
        entries += head + short + bytes(-len(short) % 4)
    if not entries:
        return NO_ATTRIBUTES
    return struct.pack("<I", _XATTR_MAGIC) + entries.ljust(EXTENDED_BYTES - 4 - len(values), b"\0") + values


def device(major: int, minor: int) -> bytes:
    """Return how an inode says which device it is: new_encode_dev in include/linux/kdev_t.h."""
    if major < 256 and minor < 256:
        return struct.pack("<I", major << 8 | minor)
    return struct.pack("<II", 0, minor & 0xFF | major << 8 | (minor & ~0xFF) << 12)


def directory(entries: Iterable[tuple[bytes, int, int]]) -> bytes:
    """Return a directory's blocks: a name, an inode's number, and the kind in the bits that a mode has it in."""
    blocks, block, last = [], b"", b""
    for name, number, kind in entries:
        entry = struct.pack("<IHBB", number, 8 + len(name) + -len(name) % 4, len(name), CODES[kind << 12]) + name
        entry += bytes(-len(name) % 4)
        if len(block) + len(last) + len(entry) > BLOCK:
            blocks.append(block + _to_the_end(last, BLOCK - len(block)))
            block, last = b"", b""
        block, last = block + last, entry
    blocks.append(block + _to_the_end(last, BLOCK - len(block)))
    return b"".join(blocks)


def bitmap(bits: int, ranges: Iterable[tuple[int, int]]) -> bytes:
    """Return as many bits, set in each of the ranges as far as they are within."""
    value = 0
    for start, end in ranges:
        start, end = max(start, 0), min(end, bits)
        if start < end:
            value |= (1 << end) - (1 << start)
    return value.to_bytes(bits // 8, "little")


def ones(bits: bytes) -> int:
    """Return how many bits are set."""
    return int.from_bytes(bits, "little").bit_count()


def descriptor(bitmaps: int, table: int, free_blocks: int, free_inodes: int, directories: int) -> bytes:
    """Return a group's descriptor; its two bitmaps lie behind each other."""
    return struct.pack("<IIIHHH", bitmaps, bitmaps + 1, table, free_blocks, free_inodes, directories).ljust(
        DESCRIPTOR_BYTES, b"\0"
    )


def superblock(
    *,
    blocks: int,
    free_blocks: int,
    inodes: int,
    free_inodes: int,
    inodes_in_group: int,
    uuid: bytes,
    now: int,
    journal: bytes,
) -> bytes:
    """Return the superblock; `journal` is what is known of where the journal is, empty where there is none."""
    out = bytearray(1024)
    groups = (inodes, blocks, 0, free_blocks, free_inodes, 0, 2, 2, BLOCKS_IN_GROUP, BLOCKS_IN_GROUP, inodes_in_group)
    struct.pack_into("<11I", out, 0, *groups)
    # When it was last mounted (never) and written, how often, magic, clean, go on at errors, revision 1 of Linux.
    struct.pack_into(
        "<IIHHHHHHIIIIHHIHH", out, 0x2C, 0, now, 0, 0xFFFF, 0xEF53, 1, 1, 0, now, 0, 0, 1, 0, 0, 11, 256, 0
    )
    compatible = _COMPATIBLE | (_HAS_JOURNAL if journal else 0)
    struct.pack_into("<III", out, 0x5C, compatible, _INCOMPATIBLE, _READ_ONLY_COMPATIBLE)
    out[0x68:0x78] = uuid
    out[0xEC:0xFC] = uuid
    out[0xFC] = 1
    struct.pack_into("<I", out, 0x100, 0xC)
    struct.pack_into("<I", out, 0x108, now)
    if journal:
        struct.pack_into("<I", out, 0xE0, 8)
        out[0xFD] = 1
        out[0x10C : 0x10C + len(journal)] = journal
    struct.pack_into("<HHI", out, 0x15C, _EXTRA_BYTES, _EXTRA_BYTES, 1)
    out[0x174] = 4
    return bytes(out)


def journal(blocks: int, uuid: bytes) -> bytes:
    """Return the first block of an empty journal: journal_superblock_s in include/linux/jbd2.h."""
    head = struct.pack(">12I", 0xC03B3998, 4, 0, BLOCK, blocks, 1, 1, 0, 0, 0, 0, 0)
    return (head + uuid + struct.pack(">I", 1)).ljust(BLOCK, b"\0")


_LOW: Final = 0xFFFFFFFF


def _node(entries: Sequence[tuple[int, bytes]], most: int, depth: int) -> bytes:
    head = struct.pack("<HHHHI", _EXTENT_MAGIC, len(entries), most, depth, 0)
    return head + b"".join(data for _, data in entries)


def _to_the_end(entry: bytes, length: int) -> bytes:
    """Return the last entry of a block, which is as long as what is left of it."""
    number, _, rest = entry[:4], entry[4:6], entry[6:]
    return (number + struct.pack("<H", length) + rest).ljust(length, b"\0")


def _time(seconds: int) -> tuple[int, int]:
    """Return the two fields of a time: the seconds' lower half, which has a sign, and what is above it."""
    bounded = min(max(seconds, -(1 << 31)), (1 << 34) - (1 << 31) - 1)
    low = bounded & _LOW
    signed = low - (1 << 32) if low >= 1 << 31 else low
    return low, (bounded - signed) >> 32 & 3
