"""Tars made by hand: whatever their headers say, they are refused in words, and take little memory."""

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from supervisor.images import root_disk
from supervisor.images.ext4 import Ext4Error
from supervisor.images.root_disk import TarError, members
from tests.supervisor.test_root_disks import entry, made, tar_of

MIB = 1 << 20


def packed(*entries: tarfile.TarInfo, pax: bool = True) -> bytes:
    if pax:
        return b"".join(one.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape") for one in entries) + bytes(1024)
    return b"".join(one.tobuf(tarfile.GNU_FORMAT) for one in entries) + bytes(1024)


def with_field(at: int, field: bytes, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a tar of one entry, a field of whose header is written over; the checksum is right."""
    header = bytearray(entry("x", kind).tobuf(tarfile.GNU_FORMAT))
    header[at : at + len(field)] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(1024)


SIZE, MTIME, MAJOR, MINOR = 124, 136, 329, 337
NEGATIVE, HUGE = b"\xff" * 11 + b"\xfb", b"\x80" + b"\x7f" * 11


def with_dictionary_of(size: int) -> bytes:
    """Return the beginning of an lzma that asks for a dictionary."""
    return b"\x5d" + struct.pack("<I", size) + b"\xff" * 8 + lzma.compress(bytes(99), lzma.FORMAT_ALONE)[13:]


@pytest.mark.parametrize(
    ("tar", "why"),
    [
        (packed(entry("x", pax_headers={"mtime": "inf"})), "which is no time"),
        (packed(entry("x", pax_headers={"mtime": "-inf"})), "which is no time"),
        (packed(entry("x", pax_headers={"mtime": "nan"})), "which is no time"),
        (packed(entry("x", pax_headers={"size": "-5"})), "-5 bytes"),
        (packed(entry("x", pax_headers={"size": "-5"}), entry("y")), "-5 bytes"),
        (packed(entry("x", pax_headers={"uid": "-5"})), "the owner -5"),
        (packed(entry("x", pax_headers={"GNU.sparse.map": "0,1,-5,1"})), "files with holes"),
        (packed(entry("x", pax_headers={"GNU.sparse.size": "5"})), "files with holes"),
        (with_field(SIZE, NEGATIVE), "-5 bytes"),
        (with_field(SIZE, NEGATIVE, tarfile.XHDTYPE), "-5 bytes"),
        (with_field(SIZE, NEGATIVE, tarfile.GNUTYPE_LONGNAME), "-5 bytes"),
        (with_field(SIZE, HUGE), "more than 1 TiB"),
        (with_field(MAJOR, HUGE[:8], tarfile.CHRTYPE), "which is no number of one"),
        (with_field(MINOR, NEGATIVE[-8:-4] * 2, tarfile.BLKTYPE), "which is no number of one"),
        (packed(entry("a"), entry("b"))[:600], "cut off"),
        (packed(entry("a"))[:512] + b"garbage!" * 64, "damaged"),
        (packed(*(entry("l", tarfile.GNUTYPE_LONGNAME) for _ in range(2000)), pax=False), "nested too deep"),
        (b"\x1f\x8b\x08", "cut off"),
        (gzip.compress(packed(entry("a")), mtime=0)[:-40], "cut off"),
        (gzip.compress(packed(entry("a")), mtime=0)[:10] + b"\xff" * 99, "cannot be uncompressed"),
        (b"BZh91AY&SY" + b"\xff" * 99, "cannot be uncompressed"),
        (b"\xfd7zXZ\0" + b"\xff" * 99, "cannot be uncompressed"),
        (with_dictionary_of(1 << 30), "cannot be uncompressed"),
    ],
)
def test_a_tar_whose_headers_are_wrong_is_refused_in_words(tmp_path: Path, tar: bytes, why: str) -> None:
    (tmp_path / "root.tar").write_bytes(tar)
    with pytest.raises(TarError, match=why):
        made(tmp_path, tmp_path / "root.tar")


WHOLE = packed(
    entry("etc", tarfile.DIRTYPE),
    entry("n" * 120, pax_headers={"mtime": "1.5", "SCHILY.xattr.user.x": "y", "size": "0"}),
    entry("dev", tarfile.CHRTYPE, devmajor=4, devminor=64),
    entry("l", tarfile.SYMTYPE, linkname="t" * 120),
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.binary(min_size=1, max_size=12)), max_size=4),
    length=st.integers(0, len(WHOLE)),
    sound=st.booleans(),
)
def test_of_any_tar_comes_a_disk_or_a_refusal(
    tmp_path: Path, changes: list[tuple[int, bytes]], length: int, sound: bool
) -> None:
    tar = bytearray(WHOLE)
    for at, data in changes:
        tar[at : at + len(data)] = data
    for block in range(0, len(tar) - 512, 512) if sound else ():
        if tar[block + 257 : block + 262] == b"ustar":
            tar[block + 148 : block + 156] = b" " * 8
            tar[block + 148 : block + 156] = b"%06o\0 " % sum(tar[block : block + 512])
    (tmp_path / "root.tar").write_bytes(tar if sound else tar[:length])
    (tmp_path / "root.ext4").unlink(missing_ok=True)
    try:
        made(tmp_path, tmp_path / "root.tar")
    except (TarError, Ext4Error):
        return


COMPRESS: list[Callable[[bytes], bytes]] = [bz2.compress, gzip.compress, lzma.compress]


@contextmanager
def memory_below(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("compress", COMPRESS, ids=["bzip2", "gzip", "xz"])
def test_a_tar_that_becomes_long_is_never_in_memory(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    big = entry("zeros")
    big.size = 32 * MIB
    (tmp_path / "root.tar").write_bytes(compress(big.tobuf() + bytes(big.size + 1024)))
    with memory_below(16 * MIB), (tmp_path / "root.tar").open("rb") as opened:
        assert [member.name for member, _ in members(opened)] == ["zeros"]


@pytest.mark.parametrize("compress", COMPRESS, ids=["bzip2", "gzip", "xz"])
def test_streams_behind_each_other_are_one_tar(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    whole = packed(entry("a"), entry("b"))
    (tmp_path / "tar").write_bytes(compress(whole[:700]) + compress(whole[700:]) + bytes(512))
    with (tmp_path / "tar").open("rb") as opened:
        assert [member.name for member, _ in members(opened)] == ["a", "b"]


def test_extended_attributes_that_no_inode_has_room_for_are_not_kept(tmp_path: Path) -> None:
    large = {"SCHILY.xattr.user.large": "x" * (MIB // 2)}
    tar = tar_of(tmp_path / "t", *(entry(f"d{n}", tarfile.DIRTYPE, pax_headers=large) for n in range(48)))
    with memory_below(16 * MIB):
        made(tmp_path, tar)


def test_names_that_a_file_has_besides_count_as_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_disk, "MOST_ENTRIES", 100)
    names = (entry(f"l{number}", tarfile.LNKTYPE, linkname="a") for number in range(100))
    with pytest.raises(TarError, match="more than 100 entries"):
        made(tmp_path, tar_of(tmp_path / "root.tar", entry("a"), *names))


@pytest.mark.parametrize("kind", [tarfile.XGLTYPE, tarfile.XHDTYPE])
def test_headers_are_bounded_together(tmp_path: Path, kind: bytes) -> None:
    out = io.BytesIO()
    for number in range(3):
        record = b"%d key%d=" % (MIB // 2 + 20, number)
        record += b"v" * (MIB // 2 + 19 - len(record)) + b"\n"
        head = tarfile.TarInfo("h")
        head.type, head.size = kind, len(record)
        between = entry(f"file{number}").tobuf() if kind == tarfile.XGLTYPE else b""
        out.write(head.tobuf() + record + bytes(-len(record) % 512) + between)
    (tmp_path / "root.tar").write_bytes(out.getvalue() + packed(entry("last")))
    with pytest.raises(TarError, match="a header of"):
        made(tmp_path, tmp_path / "root.tar")
