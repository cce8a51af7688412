"""Root disks of tars: what is in them is as it was, e2fsck finds nothing wrong, and hostile tars are refused."""

import io
import os
import random
import shutil
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.errors import InsufficientResourcesError
from supervisor.images import ext4, ext4_structures, root_disk
from supervisor.images.disk_room import Room
from supervisor.images.ext4 import Attributes, Ext4Error, Ext4Writer
from supervisor.images.ext4_structures import BLOCK
from supervisor.images.root_disk import TarError, write_empty, write_root

MIB = 1 << 20
GIB = 1 << 30
CAPABILITY = struct.pack("<5I", 0x0200_0001, 1 << 13, 0, 0, 0)

needs_e2fsprogs = pytest.mark.skipif(shutil.which("e2fsck") is None, reason="e2fsprogs")


def entry(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.mode = kind, 0o755
    for field, value in fields.items():
        setattr(made, field, value)
    return made


def tar_of(path: Path, *entries: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for one in entries:
            info, data = one if isinstance(one, tuple) else (one, b"")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


class LimitedRoom(Room):
    """So many bytes."""

    def __init__(self, limit: int) -> None:
        self._left = limit

    def left(self) -> int:
        return self._left

    def take(self, amount: int) -> None:
        super().take(amount)
        self._left -= amount


def made(directory: Path, tar: Path, *, size: int | None = None, limit: int = GIB, journal: bool = False) -> Path:
    write_root(tar, directory / "root.ext4", size=size, room=LimitedRoom(limit), spare=0, journal=journal)
    return directory / "root.ext4"


def checked(disk: Path) -> Path:
    """Return a disk in which e2fsck finds nothing to mend."""
    ran = subprocess.run(("e2fsck", "-fn", disk), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return disk


def debugfs(disk: Path, command: str) -> str:
    return subprocess.run(("debugfs", "-R", command, disk), capture_output=True, text=True, check=True).stdout


def content(disk: Path, path: str) -> bytes:
    return subprocess.run(("debugfs", "-R", f"cat {path}", disk), capture_output=True, check=True).stdout


@needs_e2fsprogs
@pytest.mark.parametrize("journal", [False, True])
@pytest.mark.parametrize("size", [None, 256 * MIB])
def test_owners_modes_devices_links_and_capabilities_are_as_in_the_tar(
    tmp_path: Path, journal: bool, size: int | None
) -> None:
    data = random.Random(1).randbytes(3 * MIB) + bytes(MIB) + b"end"
    tar = tar_of(
        tmp_path / "root.tar",
        entry("./", tarfile.DIRTYPE, mode=0o711),
        entry("etc", tarfile.DIRTYPE, mtime=1_700_000_000),
        (entry("etc/shadow", uid=0, gid=42, mode=0o640), b"root:*\n"),
        (entry("home/user/deep/big", uid=100_000, gid=70_000, mtime=5_000_000_000), data),
        entry("etc/same", tarfile.LNKTYPE, linkname="etc/shadow"),
        entry("bin", tarfile.SYMTYPE, linkname="usr/bin"),
        entry("long", tarfile.SYMTYPE, linkname="../" * 40 + "x"),
        entry("dev/console", tarfile.CHRTYPE, mode=0o600, devmajor=5, devminor=1),
        entry("dev/disk", tarfile.BLKTYPE, devmajor=259, devminor=70_000),
        entry("run/fifo", tarfile.FIFOTYPE),
        (entry("ping", mode=0o4755, pax_headers={"SCHILY.xattr.security.capability": CAPABILITY.decode()}), b"#!"),
        (entry("name\nwith \N{SNOWMAN}"), b"odd"),
    )
    disk = checked(made(tmp_path, tar, size=size, journal=journal))
    if size is not None:
        assert disk.stat().st_size == size
    assert disk.stat().st_mode & 0o777 == 0o600
    assert disk.stat().st_blocks * 512 < 6 * MIB, "what is zero takes no room"
    shown = debugfs(disk, "stat /etc/shadow")
    assert "Mode:  0640" in shown and "User:     0   Group:    42" in shown and "Links: 2" in shown
    assert debugfs(disk, "stat /etc/same").splitlines()[0] == shown.splitlines()[0]
    big = debugfs(disk, "stat /home/user/deep/big")
    assert "User: 100000   Group: 70000" in big and "mtime: 0x2a05f200:00000001" in big
    assert content(disk, "/home/user/deep/big") == data
    assert 'Fast link dest: "usr/bin"' in debugfs(disk, "stat /bin")
    assert content(disk, "/long").decode() == "../" * 40 + "x"
    assert "number: 05:01" in debugfs(disk, "stat /dev/console")
    assert "259:70000" in debugfs(disk, "stat /dev/disk")
    assert "FIFO" in debugfs(disk, "stat /run/fifo")
    assert "Mode:  04755" in debugfs(disk, "stat /ping")
    assert CAPABILITY.hex(" ") in debugfs(disk, "ea_get -x /ping security.capability").replace("\n", "")
    assert "Mode:  0711" in debugfs(disk, "stat /")
    assert "has_journal" in debugfs(disk, "stats") or not journal


@needs_e2fsprogs
def test_many_small_files_get_more_groups_of_inodes_and_large_directories_several_blocks(tmp_path: Path) -> None:
    with (tmp_path / "disk").open("xb+") as file:
        writer = Ext4Writer(file.fileno(), GIB, Room())
        for number in range(20_000):
            writer.file(f"many/{number}".encode(), Attributes(), 1, io.BytesIO(b"x"))
        for number in range(200):
            writer.directory(f"directories/{number}".encode(), Attributes())
        writer.finish(None, os.urandom(16), 0)
    checked(tmp_path / "disk")
    assert content(tmp_path / "disk", "/many/19999") == b"x"


@needs_e2fsprogs
def test_a_file_in_thousands_of_pieces_has_a_tree_of_them(tmp_path: Path) -> None:
    pieces = 3000
    data = b"".join(bytes(65_536) + b"%65536d" % number for number in range(pieces))
    disk = checked(made(tmp_path, tar_of(tmp_path / "root.tar", (entry("sparse"), data))))
    assert content(disk, "/sparse") == data
    assert disk.stat().st_blocks * 512 < len(data) * 0.6


@needs_e2fsprogs
def test_an_empty_disk_is_one(tmp_path: Path) -> None:
    write_empty(tmp_path / "scratch", 64 * MIB, Room())
    checked(tmp_path / "scratch")
    assert (tmp_path / "scratch").stat().st_blocks * 512 < MIB


@needs_e2fsprogs
@pytest.mark.parametrize("mode", ["w:gz", "w:xz", "w:bz2"])
def test_a_compressed_tar_is_read(tmp_path: Path, mode: str) -> None:
    disk = checked(made(tmp_path, tar_of(tmp_path / "root.tar", (entry("a"), b"data"), mode=mode)))
    assert content(disk, "/a") == b"data"


def with_header_of(size: int) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        info = entry("long", tarfile.GNUTYPE_LONGNAME)
        info.size = size
        path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(BLOCK))
        return path

    return write


def of(*entries: tuple[tarfile.TarInfo, bytes] | tarfile.TarInfo) -> Callable[[Path], Path]:
    return lambda path: tar_of(path, *entries)


def cut_off(path: Path) -> Path:
    tar_of(path, (entry("a"), bytes(100_000)))
    os.truncate(path, 5000)
    return path


def no_tar(path: Path) -> Path:
    path.write_bytes(b"no tar" * 1000)
    return path


@pytest.mark.parametrize(
    ("write", "why"),
    [
        (of((entry("../../etc/passwd"), b"x")), "leads out of the root by .."),
        (of((entry("a/../b"), b"x")), "leads out of the root by .."),
        (of(entry("l", tarfile.SYMTYPE, linkname="/etc"), (entry("l/passwd"), b"x")), "'l' is no directory before it"),
        (of((entry("a"), b"x"), (entry("a"), b"y")), "'a' is in it twice"),
        (of((entry("a"), b"x"), entry("a", tarfile.DIRTYPE)), "'a' is no directory before it"),
        (of(entry("h", tarfile.LNKTYPE, linkname="/etc/passwd")), "'etc' is no directory before it"),
        (of(entry("d", tarfile.DIRTYPE), entry("h", tarfile.LNKTYPE, linkname="d")), "is no file before it"),
        (of((entry("n" * 256), b"x")), "a name of 256 bytes"),
        (of((entry("d/" * 2100 + "x"), b"x")), "the longest has 4096"),
        (of(entry("l", tarfile.SYMTYPE, linkname="x" * 5000)), "a link to a path of 5000 bytes"),
        (of(entry("c", b"Z")), "is of a kind"),
        (with_header_of(1 << 40), "a header of 1099511627776 bytes"),
        (cut_off, "cut off|ends before"),
        (no_tar, "it is no tar"),
    ],
)
def test_a_hostile_tar_is_refused_with_the_entry_that_is_wrong(
    tmp_path: Path, write: Callable[[Path], Path], why: str
) -> None:
    with pytest.raises((TarError, Ext4Error), match=why):
        made(tmp_path, write(tmp_path / "root.tar"))


def test_a_tar_of_too_many_entries_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(root_disk, "MOST_ENTRIES", 100)
    tar = tar_of(tmp_path / "root.tar", *(entry(f"d{number}", tarfile.DIRTYPE) for number in range(101)))
    with pytest.raises(TarError, match="more than 100 entries"):
        made(tmp_path, tar)


def test_a_tar_that_grows_without_end_is_given_up_at_what_the_disk_may_have(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "root.tar", (entry("ones"), b"\1" * (64 * MIB)), mode="w:gz")
    assert tar.stat().st_size < MIB
    with pytest.raises(InsufficientResourcesError, match="more than"):
        made(tmp_path, tar, limit=32 * MIB)
    assert (tmp_path / "root.ext4").stat().st_blocks * 512 <= 33 * MIB


def test_what_does_not_fit_into_the_size_is_told(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "root.tar", (entry("a"), b"\1" * (9 * MIB)))
    with pytest.raises(Ext4Error, match="and may have 10"):
        made(tmp_path, tar, size=10 * MIB)


def test_a_disk_of_any_size_takes_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "ones.tar", (entry("ones"), b"\1" * (64 * MIB)), mode="w:gz")
    with pytest.raises(InsufficientResourcesError, match="more than"):
        made(tmp_path, tar, size=1 << 40, limit=32 * MIB)
    assert (tmp_path / "root.ext4").stat().st_blocks * 512 <= 33 * MIB
    (tmp_path / "root.ext4").unlink()
    small = tar_of(tmp_path / "small.tar", (entry("one"), b"\1"))
    assert made(tmp_path, small, size=64 * GIB, limit=32 * MIB).stat().st_size == 64 * GIB, "holes take none"
    with pytest.raises(InsufficientResourcesError, match="more than"):
        write_empty(tmp_path / "scratch", 1 << 42, LimitedRoom(32 * MIB))


@needs_e2fsprogs
def test_a_directory_longer_than_an_extent_has_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ext4_structures, "_MOST_IN_EXTENT", 2)
    tar = tar_of(tmp_path / "root.tar", *(entry(f"many/{number:0200}", tarfile.FIFOTYPE) for number in range(100)))
    disk = checked(made(tmp_path, tar))
    rows = [line.rpartition("-")[2].split() for line in debugfs(disk, "ex /many").splitlines()[1:]]
    assert [int(row[-1]) for row in rows] == [2, 2, 2]


def test_names_without_end_are_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ext4, "MOST_NAME_BYTES", MIB)
    tar = tar_of(tmp_path / "root.tar", *(entry(f"{number:0250}", tarfile.DIRTYPE) for number in range(5000)))
    with pytest.raises(Ext4Error, match="names have more than 1 MiB"):
        made(tmp_path, tar)


def test_nothing_of_a_tar_is_put_into_the_hosts_file_system(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "root.tar", (entry("a"), b"x"), entry("c", tarfile.CHRTYPE, devmajor=1, devminor=3))
    made(tmp_path, tar)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["root.ext4", "root.tar"]
    assert stat.S_ISREG((tmp_path / "root.ext4").lstat().st_mode)
