"""Directories that are added as images: what is put on the host's disk of a tar, and how much of that."""

import errno
import tarfile
from pathlib import Path

import pytest

from supervisor.errors import InsufficientResourcesError, InvalidImageError
from supervisor.images.adding import unpack
from supervisor.images.disk_room import DISK_KEPT, DiskRoom, Room
from supervisor.system import headroom
from tests.supervisor.test_root_disks import LimitedRoom, entry, tar_of

MIB = 1 << 20


def unpacked(directory: Path, tar: Path, room: Room) -> Path:
    target = directory / "image"
    target.mkdir()
    unpack("web", tar, target, room)
    return target


def test_what_a_tar_becomes_takes_no_more_than_there_is_room_for(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "tar", (entry("mem"), b"\1" * (64 * MIB)), mode="w:gz")
    assert tar.stat().st_size < MIB
    with pytest.raises(InsufficientResourcesError):
        unpacked(tmp_path, tar, LimitedRoom(8 * MIB))
    assert (tmp_path / "image" / "mem").stat().st_blocks * 512 <= 9 * MIB


def test_zeros_take_no_room(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "tar", (entry("mem"), bytes(64 * MIB)), mode="w:gz")
    assert (unpacked(tmp_path, tar, LimitedRoom(0)) / "mem").stat().st_size == 64 * MIB


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("n" * 256, "File name too long"),
        ("d/" * 3000 + "x", "a path of more than 4096 bytes"),
        ("d/" * 1500, "lies in more than 16 directories"),
        ("vm\0json", "leads out"),
    ],
)
def test_a_name_that_no_file_may_have_is_the_images_fault(tmp_path: Path, name: str, why: str) -> None:
    tar = tar_of(tmp_path / "tar", entry("x", pax_headers={"path": name}))
    with pytest.raises(InvalidImageError, match=f"image web: .*{why}"):
        unpacked(tmp_path, tar, Room())


def test_a_size_that_is_none_is_the_images_fault(tmp_path: Path) -> None:
    tar = tar_of(tmp_path / "tar", entry("x", pax_headers={"size": "-5"}))
    with pytest.raises(InvalidImageError, match="'x' has -5 bytes"):
        unpacked(tmp_path, tar, Room())


def test_a_disk_that_fails_is_not(tmp_path: Path) -> None:
    (tmp_path / "tar").mkdir()
    with pytest.raises(OSError) as raised:
        unpacked(tmp_path, tmp_path / "tar", Room())
    assert raised.value.errno == errno.EISDIR


def test_the_room_of_a_disk_is_what_it_has_left_by_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = [DISK_KEPT + 9, DISK_KEPT + 9, DISK_KEPT - 9]
    monkeypatch.setattr(headroom, "disk", lambda directory: headroom.Left(left.pop(0), "free blocks"))
    room = DiskRoom("image web", tmp_path)
    room.take(9)
    for _ in range(2):
        with pytest.raises(InsufficientResourcesError, match=r"image web: .*64 MiB are kept"):
            room.take(10)


def test_a_tar_names_no_file_twice(tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match="a file twice"):
        unpacked(tmp_path, tar_of(tmp_path / "tar", entry("x"), entry("x", tarfile.REGTYPE)), Room())
