"""A root disk of what a tar has, as `docker export` writes one: owners, modes, devices and links as they are in it.

Nothing of the tar is put into the host's file system: its names are names in the disk, and nothing else. Every function
blocks on the disk.
"""

import math
import os
import stat
import struct
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, cast

from supervisor.concurrency.progress import advance, check
from supervisor.images.compressed import LONGEST_MAGIC, CompressedError, uncompressed
from supervisor.images.disk_room import Room
from supervisor.images.ext4 import LOST_AND_FOUND, MOST_BLOCKS, Attributes, Ext4Error, Ext4Writer, Source
from supervisor.images.ext4_structures import BLOCK, extended_attributes
from supervisor.system.regular_files import new_file

MOST_ENTRIES: Final = 1_000_000
LARGEST_FILE: Final = 1 << 40
"""Bytes of one, and of all together: a tar of zeros has any number."""
LONGEST_HEADER: Final = 1 << 20
"""Bytes of what precedes an entry, names and attributes, which are read whole; and of what precedes all that follow."""
MOST_MAJOR: Final = 1 << 12
MOST_MINOR: Final = 1 << 20
"""Of a device's two numbers: MINORBITS in include/linux/kdev_t.h."""
_SPARSE: Final = "it has files with holes, which are not read: make it without (tar -S)"
_LONG_HEADERS: Final = (
    *(tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK),
    *(tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE),
)
_KINDS: Final = {tarfile.CHRTYPE: stat.S_IFCHR, tarfile.BLKTYPE: stat.S_IFBLK, tarfile.FIFOTYPE: stat.S_IFIFO}
_XATTR: Final = "SCHILY.xattr."


class TarError(ValueError):
    """It is no tar that a root can be made of; the message names the entry, and says why."""


def write_root(tar: Path, target: Path, *, size: int | None, room: Room, spare: int, journal: bool) -> tuple[int, int]:
    """Write a tar's root disk to a new file; return its bytes and how many files it has.

    Without a `size` it has `spare` bytes of room. What it takes on the host's disk is taken of `room`. The bytes of the
    tar count as done as they are read. Raises TarError, Ext4Error, OSError, and InsufficientResourcesError.
    """
    with tar.open("rb") as given, new_file(target) as file:
        # One that comes to more than its size is written all the same: how much it needs is told.
        writer = Ext4Writer(file.fileno(), MOST_BLOCKS * BLOCK, room, journal=journal)
        for number, (member, data) in enumerate(members(given), 1):
            _put(writer, member, data)
            # Names that a file has besides are no files, and directories above one are no entries.
            if max(number, writer.entries) > MOST_ENTRIES:
                raise TarError(f"it has more than {MOST_ENTRIES} entries")
        wanted = size if size is not None else writer.bytes_used + spare if spare else None
        return writer.finish(wanted, os.urandom(16), int(time.time())), writer.entries - LOST_AND_FOUND


def write_empty(target: Path, size: int, room: Room) -> None:
    """Write a disk with nothing on it; raises Ext4Error, OSError, and InsufficientResourcesError."""
    with new_file(target) as file:
        Ext4Writer(file.fileno(), size, room, journal=True).finish(size, os.urandom(16), int(time.time()))


def members(given: IO[bytes]) -> Iterator[tuple[tarfile.TarInfo, Source]]:
    """Yield the entries of a tar, compressed or not, with what their data are read from; raises TarError."""
    total = 0
    try:
        source = uncompressed(given.read(LONGEST_MAGIC), _Counted(given), check)
        given.seek(0)
        with _Archive.open(fileobj=cast(IO[bytes], source), mode="r|", tarinfo=_Member, encoding="utf-8") as archive:
            while (member := archive.next()) is not None:
                check()
                archive.forget()
                _check(member)
                total += member.size
                if total > LARGEST_FILE:
                    raise TarError(f"its files have more than {LARGEST_FILE >> 40} TiB")
                yield member, _Data(member, archive.extractfile(member) if member.isreg() else None)
    except RecursionError as error:
        raise TarError("its headers are nested too deep") from error
    except CompressedError as error:
        raise TarError(str(error)) from error
    except (tarfile.TarError, EOFError, ValueError, OverflowError, struct.error) as error:
        if isinstance(error, TarError | Ext4Error):
            raise
        raise TarError(f"it is no tar, or is cut off: {error}") from error


def path_of(name: str) -> bytes:
    """Return a name of a tar as the bytes that it has there."""
    return name.encode("utf-8", "surrogateescape")


class _Archive(tarfile.TarFile):
    """A tar of which nothing stays in memory but what its global headers say."""

    header_bytes = 0
    """Of the headers in front of the next entry, each of which is kept until that is read."""
    global_bytes = 0

    def forget(self) -> None:
        """Keep nothing of the entry that was read last."""
        self.members.clear()  # type: ignore[attr-defined]
        self.header_bytes = 0


class _Member(tarfile.TarInfo):
    """An entry whose headers are read into memory only as far as anybody needs that."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        try:
            return super().frombuf(buf, encoding, errors)
        except (tarfile.InvalidHeaderError, tarfile.TruncatedHeaderError) as error:  # type: ignore[attr-defined]
            # It would count as the end of the tar.
            raise TarError(f"it is no tar, or is damaged or cut off: {error}") from error

    def _proc_member(self, archive: _Archive) -> tarfile.TarInfo:
        if self.size < 0:
            raise TarError(f"{self.name!r} has {self.size} bytes")
        if self.type in _LONG_HEADERS:
            archive.header_bytes += self.size
            archive.global_bytes += self.size if self.type == tarfile.XGLTYPE else 0
            size = max(archive.header_bytes, archive.global_bytes)
            if size > LONGEST_HEADER:
                raise TarError(f"it has a header of {size} bytes, and the longest that is read has {LONGEST_HEADER}")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]

    def _proc_sparse(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        raise TarError(_SPARSE)

    def _proc_gnusparse_00(self, *_: object) -> None:
        raise TarError(_SPARSE)

    def _proc_gnusparse_01(self, *_: object) -> None:
        raise TarError(_SPARSE)

    def _proc_gnusparse_10(self, *_: object) -> None:
        raise TarError(_SPARSE)


class _Counted:
    """A file whose bytes count as done when they are read."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        advance(len(data))
        return data


class _Data:
    """What an entry's data are read from; raises TarError where they are cut off."""

    def __init__(self, member: tarfile.TarInfo, file: IO[bytes] | None) -> None:
        self._member = member
        self._file = file

    def read(self, size: int, /) -> bytes:
        try:
            return b"" if self._file is None else self._file.read(size)
        except (tarfile.TarError, CompressedError) as error:
            raise TarError(f"{self._member.name!r} is cut off: {error}") from error


def _put(writer: Ext4Writer, member: tarfile.TarInfo, data: Source) -> None:
    path, attributes = path_of(member.name), _attributes(member)
    if member.isdir():
        writer.directory(path, attributes)
    elif member.isreg():
        writer.file(path, attributes, member.size, data)
    elif member.issym():
        writer.symbolic_link(path, attributes, path_of(member.linkname))
    elif member.islnk():
        writer.hard_link(path, path_of(member.linkname))
    elif member.type in _KINDS:
        kind = _KINDS[member.type]
        writer.device(path, attributes, kind, *((member.devmajor, member.devminor) if kind != stat.S_IFIFO else ()))
    else:
        raise TarError(f"{member.name!r} is of a kind that a file system does not have ({member.type!r})")


def _check(member: tarfile.TarInfo) -> None:
    """Raise TarError for numbers that no file has."""
    if member.size < 0:
        raise TarError(f"{member.name!r} has {member.size} bytes")
    for name, value in (("owner", member.uid), ("group", member.gid)):
        if not 0 <= value < 1 << 32:
            raise TarError(f"{member.name!r} has the {name} {value}, which is no number of one")
    if not math.isfinite(member.mtime):
        raise TarError(f"{member.name!r} was changed at {member.mtime}, which is no time")
    device = member.type in (tarfile.CHRTYPE, tarfile.BLKTYPE)
    if device and not (0 <= member.devmajor < MOST_MAJOR and 0 <= member.devminor < MOST_MINOR):
        raise TarError(f"{member.name!r} is the device {member.devmajor}:{member.devminor}, which is no number of one")


def _attributes(member: tarfile.TarInfo) -> Attributes:
    extended = extended_attributes(
        (name.removeprefix(_XATTR), path_of(value))
        for name, value in member.pax_headers.items()
        if name.startswith(_XATTR)
    )
    return Attributes(member.mode & 0o7777, member.uid, member.gid, int(member.mtime), extended)
