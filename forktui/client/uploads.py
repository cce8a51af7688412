"""Files that are sent to the supervisor: read here, by this user, as they are sent."""

import asyncio
import os
import stat
import tarfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import aiohttp
from aiohttp.payload import AsyncIterablePayload
from pydantic import BaseModel

_PIECE: Final = 1 << 20
_TAR_BLOCK: Final = 512
_BINARY: Final = "application/octet-stream"


@dataclass(frozen=True)
class SentFile:
    """A file, or a tar that is made as it is sent: about how many bytes, and what yields them. That blocks."""

    size: int
    pieces: Callable[[], Iterator[bytes]]

    def payload(self) -> aiohttp.Payload:
        """Return what sends it."""
        return AsyncIterablePayload(_from_thread(self.pieces()), content_type=_BINARY)


def parts_of(request: BaseModel, files: Mapping[str, SentFile]) -> aiohttp.MultipartWriter:
    """Return a body of a request and files behind it, by their names."""
    writer = aiohttp.MultipartWriter("form-data")
    first = writer.append_json(request.model_dump(mode="json", exclude_unset=True))
    first.set_content_disposition("form-data", name="request")
    for name, file in files.items():
        part = file.payload()
        part.set_content_disposition("form-data", name=name, filename=name)
        writer.append_payload(part)
    return writer


def whole_file(path: Path) -> SentFile:
    """Return a file as it is; raises OSError for one that cannot be opened."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size

    def pieces() -> Iterator[bytes]:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                yield piece

    return SentFile(size, pieces)


def standard_input() -> SentFile:
    """Return what is read from there, of which nobody knows how much it is."""

    def pieces() -> Iterator[bytes]:
        while piece := os.read(0, _PIECE):
            yield piece

    return SentFile(0, pieces)


def tar_of_bytes(files: Iterable[tuple[str, bytes]]) -> SentFile:
    """Return a tar of files that are in memory."""
    kept = list(files)

    def pieces() -> Iterator[bytes]:
        for name, data in kept:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            yield _head(entry) + data + bytes(-len(data) % _TAR_BLOCK)
        yield bytes(2 * _TAR_BLOCK)

    return SentFile(sum(_TAR_BLOCK + len(data) for _, data in kept), pieces)


def tar_of_root(directory: Path) -> SentFile:
    """Return a tar of a directory that is a guest's root: owners, modes, links, devices and capabilities as they are.

    What belongs to this user is root's there, unless he is root: who has no privilege could have made it no other way.
    """
    return SentFile(_size_below(directory), lambda: _tar(_entries(directory, follow=False)))


def tar_of_image(directory: Path) -> SentFile:
    """Return a tar of a directory that is an image: its files, and those that links in it lead to."""
    return SentFile(_size_below(directory), lambda: _tar(_entries(directory, follow=True)))


def _tar(entries: Iterator[tuple[tarfile.TarInfo, Path]]) -> Iterator[bytes]:
    for entry, path in entries:
        if not entry.isreg():
            yield _head(entry)
            continue
        with path.open("rb") as file:
            entry.size = os.fstat(file.fileno()).st_size
            yield _head(entry)
            yield from _whole(file, entry.size, path)
            yield bytes(-entry.size % _TAR_BLOCK)
    yield bytes(2 * _TAR_BLOCK)


def _whole(file: IO[bytes], size: int, path: Path) -> Iterator[bytes]:
    left = size
    while left:
        piece = file.read(min(left, _PIECE))
        if not piece:
            raise OSError(0, "it became shorter while it was read", str(path))
        left -= len(piece)
        yield piece


def _head(entry: tarfile.TarInfo) -> bytes:
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")


def _entries(top: Path, *, follow: bool) -> Iterator[tuple[tarfile.TarInfo, Path]]:
    links: dict[tuple[int, int], str] = {}
    for path in _below(top):
        status = path.stat() if follow else path.lstat()
        if stat.S_ISSOCK(status.st_mode):
            continue
        name = str(path.relative_to(top))
        entry = _entry(name, status)
        if entry.issym():
            entry.linkname = str(path.readlink())
        elif entry.isreg() and status.st_nlink > 1 and not follow:
            first = links.setdefault((status.st_dev, status.st_ino), name)
            if first != name:
                entry.type, entry.linkname = tarfile.LNKTYPE, first
        if not follow and not entry.issym():
            entry.pax_headers = _capabilities(path)
        yield entry, path


def _below(top: Path) -> Iterator[Path]:
    """Yield the directory and all that is in it, a directory before what it has; raises OSError."""
    pending = [top]
    while pending:
        folder = pending.pop()
        yield folder
        for path in sorted(folder.iterdir(), reverse=True):
            if path.is_dir() and not path.is_symlink():
                pending.append(path)
            else:
                yield path


def _entry(name: str, status: os.stat_result) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    kinds = {
        stat.S_IFDIR: tarfile.DIRTYPE,
        stat.S_IFLNK: tarfile.SYMTYPE,
        stat.S_IFCHR: tarfile.CHRTYPE,
        stat.S_IFBLK: tarfile.BLKTYPE,
        stat.S_IFIFO: tarfile.FIFOTYPE,
    }
    entry.type = kinds.get(stat.S_IFMT(status.st_mode), tarfile.REGTYPE)
    entry.mode, entry.mtime = stat.S_IMODE(status.st_mode), int(status.st_mtime)
    entry.uid = 0 if status.st_uid == os.geteuid() else status.st_uid
    entry.gid = 0 if status.st_uid == os.geteuid() and status.st_gid == os.getegid() else status.st_gid
    if entry.type in (tarfile.CHRTYPE, tarfile.BLKTYPE):
        entry.devmajor, entry.devminor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return entry


def _capabilities(path: Path) -> dict[str, str]:
    try:
        found = os.getxattr(path, "security.capability", follow_symlinks=False)
    except OSError:
        # It has none, or the file system knows of none.
        return {}
    return {"SCHILY.xattr.security.capability": found.decode("utf-8", "surrogateescape")}


def _size_below(directory: Path) -> int:
    total = 0
    for path in _below(directory):
        status = path.lstat()
        total += _TAR_BLOCK + (status.st_size if stat.S_ISREG(status.st_mode) else 0)
    return total


async def _from_thread(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Yield what an iterator that blocks does, gathered to pieces that are worth their sending."""
    while gathered := await asyncio.to_thread(_gathered, pieces):
        yield gathered


def _gathered(pieces: Iterator[bytes]) -> bytes:
    gathered = bytearray()
    for piece in pieces:
        gathered += piece
        if len(gathered) >= _PIECE:
            break
    return bytes(gathered)
