"""An ext4 file system written to a file from front to back, as what is in it comes: no privilege, and no program.

Its data lie behind each other in the order in which they come, and what describes them behind that (flex_bg lets it lie
anywhere: Documentation/filesystems/ext4). Of names nothing touches the host's own file system. Every function that
writes blocks on the disk.
"""

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

from supervisor.images import ext4_structures as structures
from supervisor.images.disk_room import Room
from supervisor.images.ext4_structures import BLOCK, BLOCKS_IN_GROUP, INODE_BYTES, Extent, Times, in_blocks

INODES_IN_GROUP: Final = 8192
"""One for 16 KiB, as mke2fs has them; groups are added where there are more of them."""
INODES_IN_BLOCK: Final = BLOCK // INODE_BYTES
TABLE_BLOCKS: Final = INODES_IN_GROUP // INODES_IN_BLOCK
MOST_BLOCKS: Final = 1 << 30
"""4 TiB: the descriptors of so many lie in front of the data, in room that is free where they are fewer."""
FIRST_DATA: Final = 1 + in_blocks(MOST_BLOCKS // BLOCKS_IN_GROUP * structures.DESCRIPTOR_BYTES)
ROOT: Final = 2
JOURNAL: Final = 8
LOST_AND_FOUND: Final = 11
JOURNAL_BLOCKS: Final = 4096
HOLE: Final = 64 << 10
"""Bytes of zeros of a file, from a multiple of this, that take no room in it."""
LONGEST_PATH: Final = 4096
LONGEST_NAME: Final = 255
MOST_NAME_BYTES: Final = 64 << 20
"""Of all names together, which are in memory until the end; half a million files have some ten million."""
MOST_LINKS: Final = 65_000
"""EXT4_LINK_MAX in fs/ext4/ext4.h: of more subdirectories a directory says 1, and a file may have no more names."""


class Ext4Error(ValueError):
    """What is to be written cannot be in such a file system, or does not fit; the message names it."""


class Source(Protocol):
    """What a file's bytes are read from."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Attributes:
    """What an inode says of its file: `mode` without its kind, the owners' numbers, seconds, extended attributes."""

    mode: int = 0o755
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    extended: bytes = structures.NO_ATTRIBUTES
    """As `structures.extended_attributes` returns them."""


_PLAIN: Final = Attributes()


@dataclass(eq=False, slots=True)
class _Directory:
    number: int
    parent: "_Directory | None"
    attributes: Attributes
    entries: "dict[bytes, int | _Directory]" = field(default_factory=dict)
    """Directories, and of all else its inode's number and kind (`_entry`)."""


class Ext4Writer:
    """Writes one to an open, empty file.

    `limit` is the most bytes that it may come to have; those of them that are no holes are taken of `room`, and whoever
    puts something in has what that raises.
    """

    def __init__(self, fd: int, limit: int, room: Room, *, journal: bool = False) -> None:
        self._fd = fd
        self._limit = min(limit // BLOCK, MOST_BLOCKS)
        self._room = room
        self._name_bytes = 0
        self._journal = journal
        self._next_block = FIRST_DATA
        self._next_inode = LOST_AND_FOUND
        self._tables: list[int] = []
        self._root = _Directory(ROOT, None, Attributes())
        self._directories = [self._root]
        self._table_of(ROOT)
        found = self._add_directory(self._root, b"lost+found")
        found.attributes = Attributes(mode=0o700)

    @property
    def entries(self) -> int:
        """How many files of all kinds it has."""
        return self._next_inode - 1

    @property
    def bytes_used(self) -> int:
        """How many bytes it has by now, but for what describes them."""
        return self._next_block * BLOCK

    def directory(self, path: bytes, attributes: Attributes) -> None:
        """Have a directory, with those above it; one that is there gets the attributes."""
        names = _names(path)
        found = self._descend(names, path)
        found.attributes = attributes

    def file(self, path: bytes, attributes: Attributes, size: int, source: Source) -> None:
        """Have a file of `size` bytes; raises Ext4Error for one that ends before."""
        number = self._new(path, stat.S_IFREG)
        extents: list[Extent] = []
        for start in range(0, size, HOLE):
            length = min(HOLE, size - start)
            data = source.read(length)
            if len(data) != length:
                raise Ext4Error(f"{_shown(path)} ends before its size")
            if data.count(0) == length:
                continue
            block = self._allocate(in_blocks(length))
            self._write(block, data)
            structures.append(extents, Extent(start // BLOCK, in_blocks(length), block))
        self._write_inode(number, stat.S_IFREG, attributes, size, extents)

    def symbolic_link(self, path: bytes, attributes: Attributes, target: bytes) -> None:
        """Have a symbolic link, wherever it leads."""
        if not 0 < len(target) < BLOCK:
            raise Ext4Error(f"{_shown(path)} is a link to a path of {len(target)} bytes, and one has 1 to {BLOCK - 1}")
        number = self._new(path, stat.S_IFLNK)
        if len(target) < structures.IN_INODE_BYTES:
            self._put_inode(number, self._inode(stat.S_IFLNK, attributes, len(target), target, 0))
            return
        block = self._allocate(1)
        self._write(block, target)
        self._write_inode(number, stat.S_IFLNK, attributes, len(target), [Extent(0, 1, block)])

    def device(self, path: bytes, attributes: Attributes, kind: int, major: int = 0, minor: int = 0) -> None:
        """Have a character or block device (`kind` is S_IFCHR or S_IFBLK), or a FIFO."""
        number = self._new(path, kind)
        self._put_inode(number, self._inode(kind, attributes, 0, structures.device(major, minor), 0))

    def hard_link(self, path: bytes, target: bytes) -> None:
        """Give a file that is there another name."""
        *above, name = _names(target) or [b""]
        found = self._descend(above, target, make=False).entries.get(name)
        if not isinstance(found, int):
            raise Ext4Error(f"{_shown(path)} is a link to {_shown(target)}, which is no file before it")
        number, kind = found >> 3, found & 7
        inode = os.pread(self._fd, INODE_BYTES, self._place(number))
        (links,) = struct.unpack_from("<H", inode, structures.LINKS_AT)
        if links >= MOST_LINKS:
            raise Ext4Error(f"{_shown(target)} has more than {MOST_LINKS} names")
        directory, new = self._free(path)
        directory.entries[new] = number << 3 | kind
        os.pwrite(self._fd, struct.pack("<H", links + 1), self._place(number) + structures.LINKS_AT)

    def finish(self, size: int | None, uuid: bytes, now: int) -> int:
        """Write what describes all that was put in, and return its bytes; without a `size` it has no room to spare."""
        for one in self._directories:
            self._write_directory(one)
        journal = self._write_journal(uuid, now) if self._journal else b""
        blocks = self._settle(size)
        os.ftruncate(self._fd, blocks * BLOCK)
        groups = in_blocks(blocks, BLOCKS_IN_GROUP)
        bitmaps = self._allocate(2 * groups)
        descriptors, free_blocks = self._write_bitmaps(bitmaps, groups, blocks)
        self._write(1, descriptors)
        superblock = structures.superblock(
            blocks=blocks,
            free_blocks=free_blocks,
            inodes=groups * INODES_IN_GROUP,
            free_inodes=groups * INODES_IN_GROUP - self.entries,
            inodes_in_group=INODES_IN_GROUP,
            uuid=uuid,
            now=now,
            journal=journal,
        )
        os.pwrite(self._fd, superblock, structures.SUPERBLOCK_AT)
        os.fsync(self._fd)
        return blocks * BLOCK

    def _settle(self, size: int | None) -> int:
        """Allocate the inode tables of all groups and return how many blocks there are."""
        wanted = 0 if size is None else size // BLOCK
        while True:
            groups = max(len(self._tables), in_blocks(max(wanted, self._next_block), BLOCKS_IN_GROUP))
            missing = groups - len(self._tables)
            needed = self._next_block + missing * TABLE_BLOCKS + 2 * groups
            # The last group has to have some of its own blocks: one that only inodes want is as long as all others.
            least = max(needed, (len(self._tables) - 1) * BLOCKS_IN_GROUP + 1)
            if in_blocks(max(wanted, least), BLOCKS_IN_GROUP) == groups:
                break
            wanted = max(wanted, least)
        for _ in range(missing):
            self._tables.append(self._allocate(TABLE_BLOCKS))
        blocks = max(wanted, least)
        if blocks > self._limit or (size is not None and blocks > size // BLOCK):
            told = self._limit * BLOCK if size is None else size
            raise Ext4Error(f"it needs {blocks * BLOCK >> 20} MiB, and may have {told >> 20}")
        return blocks

    def _write_bitmaps(self, first: int, groups: int, blocks: int) -> tuple[bytes, int]:
        """Write which blocks and inodes are used; return the groups' descriptors, and how many blocks are free."""
        used_descriptors = 1 + in_blocks(groups * structures.DESCRIPTOR_BYTES)
        directories = [0] * groups
        for one in self._directories:
            directories[(one.number - 1) // INODES_IN_GROUP] += 1
        descriptors, all_free = bytearray(), 0
        for group in range(groups):
            start, end = group * BLOCKS_IN_GROUP, (group + 1) * BLOCKS_IN_GROUP
            # What is beyond the end counts as used.
            ranges = [(0, self._next_block - start), (blocks - start, BLOCKS_IN_GROUP)]
            if group == 0:
                ranges[:1] = [(0, used_descriptors), (FIRST_DATA, self._next_block)]
            bitmap = structures.bitmap(BLOCKS_IN_GROUP, ranges)
            used = self.entries - group * INODES_IN_GROUP
            inodes = structures.bitmap(BLOCKS_IN_GROUP, [(0, used), (INODES_IN_GROUP, BLOCKS_IN_GROUP)])
            self._write(first + 2 * group, bitmap + inodes)
            free = min(end, blocks) - start - structures.ones(bitmap) + max(end - blocks, 0)
            all_free += free
            descriptors += structures.descriptor(
                first + 2 * group,
                self._tables[group],
                free,
                INODES_IN_GROUP - min(max(used, 0), INODES_IN_GROUP),
                directories[group],
            )
        return bytes(descriptors), all_free

    def _write_directory(self, one: _Directory) -> None:
        parent = one.parent or one
        entries: list[tuple[bytes, int, int]] = [
            (b".", one.number, stat.S_IFDIR >> 12),
            (b"..", parent.number, stat.S_IFDIR >> 12),
        ]
        below = 0
        for name, entry in one.entries.items():
            if isinstance(entry, _Directory):
                below += 1
                entries.append((name, entry.number, stat.S_IFDIR >> 12))
            else:
                entries.append((name, entry >> 3, structures.KIND_OF_CODE[entry & 7]))
        data = structures.directory(entries)
        block = self._allocate(len(data) // BLOCK)
        self._write(block, data)
        links = 2 + below if 2 + below < MOST_LINKS else 1
        extents: list[Extent] = []
        structures.append(extents, Extent(0, len(data) // BLOCK, block))
        self._write_inode(one.number, stat.S_IFDIR, one.attributes, len(data), extents, links)

    def _write_journal(self, uuid: bytes, now: int) -> bytes:
        """Write an empty journal and return what its inode says of where it is, for the superblock."""
        block = self._allocate(JOURNAL_BLOCKS)
        self._write(block, structures.journal(JOURNAL_BLOCKS, uuid))
        extents: list[Extent] = []
        structures.append(extents, Extent(0, JOURNAL_BLOCKS, block))
        attributes = Attributes(mode=0o600, mtime=now)
        self._write_inode(JOURNAL, stat.S_IFREG, attributes, JOURNAL_BLOCKS * BLOCK, extents)
        inode = os.pread(self._fd, INODE_BYTES, self._place(JOURNAL))
        return inode[structures.DATA_AT :][: structures.IN_INODE_BYTES] + struct.pack("<2I", 0, JOURNAL_BLOCKS * BLOCK)

    # Names

    def _descend(self, names: list[bytes], path: bytes, *, make: bool = True) -> _Directory:
        at = self._root
        for name in names:
            below = at.entries.get(name)
            if below is None and make:
                below = self._add_directory(at, name)
            if not isinstance(below, _Directory):
                raise Ext4Error(f"{_shown(path)}: {_shown(name)} is no directory before it")
            at = below
        return at

    def _add_directory(self, parent: _Directory, name: bytes) -> _Directory:
        self._count(name)
        made = _Directory(self._take_inode(), parent, _PLAIN)
        parent.entries[name] = made
        self._directories.append(made)
        return made

    def _new(self, path: bytes, kind: int) -> int:
        """Return the inode's number of a new file of some kind, which is in its directory."""
        directory, name = self._free(path)
        number = self._take_inode()
        directory.entries[name] = number << 3 | structures.CODES[kind]
        return number

    def _free(self, path: bytes) -> tuple[_Directory, bytes]:
        """Return where a file of this path is to be."""
        *above, name = _names(path) or [b""]
        directory = self._descend(above, path)
        if not name or name in directory.entries:
            raise Ext4Error(f"{_shown(path)} is in it twice")
        self._count(name)
        return directory, name

    def _count(self, name: bytes) -> None:
        """Count a name that is kept until the end."""
        self._name_bytes += len(name)
        if self._name_bytes > MOST_NAME_BYTES:
            raise Ext4Error(f"its names have more than {MOST_NAME_BYTES >> 20} MiB")

    # Blocks and inodes

    def _take_inode(self) -> int:
        number = self._next_inode
        self._next_inode += 1
        if number % INODES_IN_BLOCK == 0:
            self._room.take(BLOCK)
        self._table_of(number)
        return number

    def _table_of(self, number: int) -> None:
        while len(self._tables) <= (number - 1) // INODES_IN_GROUP:
            self._tables.append(self._allocate(TABLE_BLOCKS))

    def _place(self, number: int) -> int:
        """Return where an inode is in the file."""
        group, index = divmod(number - 1, INODES_IN_GROUP)
        return self._tables[group] * BLOCK + index * INODE_BYTES

    def _allocate(self, count: int) -> int:
        first = self._next_block
        if first + count > self._limit:
            raise Ext4Error(f"it needs more than the {self._limit * BLOCK >> 20} MiB that it may have")
        self._next_block += count
        return first

    def _write(self, block: int, data: bytes) -> None:
        self._room.take(len(data))
        view, at = memoryview(data), block * BLOCK
        while view:
            written = os.pwrite(self._fd, view, at)
            view, at = view[written:], at + written

    def _write_inode(
        self, number: int, kind: int, attributes: Attributes, size: int, extents: list[Extent], links: int = 1
    ) -> None:
        root, nodes = structures.extent_tree(extents, self._allocate)
        for block, data in nodes:
            self._write(block, data)
        used = sum(one.length for one in extents) + len(nodes)
        self._put_inode(number, self._inode(kind, attributes, size, root, used, links, structures.EXTENTS))

    def _inode(
        self,
        kind: int,
        attributes: Attributes,
        size: int,
        data: bytes,
        blocks: int,
        links: int = 1,
        flags: int = 0,
    ) -> bytes:
        owner = (attributes.uid, attributes.gid)
        head = structures.inode(
            kind | attributes.mode & 0o7777, owner, size, Times(attributes.mtime), data, blocks, links, flags
        )
        return head + attributes.extended

    def _put_inode(self, number: int, inode: bytes) -> None:
        os.pwrite(self._fd, inode, self._place(number))


def _names(path: bytes) -> list[bytes]:
    """Return the names in a path below the root; raises Ext4Error for one that leads out of it, or is too long."""
    if len(path) > LONGEST_PATH:
        raise Ext4Error(f"{_shown(path[:64])}... is a path of {len(path)} bytes, and the longest has {LONGEST_PATH}")
    names = list(_parts(path))
    if b".." in names:
        raise Ext4Error(f"{_shown(path)} leads out of the root by ..")
    if any(b"\0" in name for name in names):
        raise Ext4Error(f"{_shown(path)} has a NUL in it")
    long = next((name for name in names if len(name) > LONGEST_NAME), None)
    if long is not None:
        raise Ext4Error(f"{_shown(long[:64])}... is a name of {len(long)} bytes, and the longest has {LONGEST_NAME}")
    return names


def _parts(path: bytes) -> Iterator[bytes]:
    return (name for name in path.split(b"/") if name not in (b"", b"."))


def _shown(path: bytes) -> str:
    return repr(path.decode(errors="backslashreplace"))
