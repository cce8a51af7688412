"""The files of an image that is built: all of them on the disk, and no more than there is room for."""

import gzip
import io
import os
import tarfile
from pathlib import Path

import pytest

from supervisor.errors import InsufficientResourcesError
from supervisor.images.building import Given, build
from supervisor.images.disk_room import Room
from supervisor.models import BuildImageRequest
from tests.harness.kernels import bzimage, vmlinux
from tests.supervisor.test_root_disks import LimitedRoom, entry

MIB = 1 << 20


def built(directory: Path, files: dict[str, bytes], room: Room) -> Path:
    """Return the directory of an image of parts."""
    target = directory / "image"
    target.mkdir()
    for name, data in files.items():
        (directory / name).write_bytes(data)
    paths = {name: directory / name for name in files}
    build(Given(BuildImageRequest(name="web"), paths, None, room), target)
    return target


def tar_of(names: list[str], data: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as archive:
        for name in names:
            one = entry(name)
            one.size = len(data)
            archive.addfile(one, io.BytesIO(data))
    return out.getvalue()


def test_all_files_of_an_image_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = set()
    fsync = os.fsync

    def noted(fd: int) -> None:
        fsync(fd)
        synced.add(os.fstat(fd).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    files = {"kernel": vmlinux(), "initrd": b"initrd", "rootfs": tar_of(["a"], b"x")}
    image = built(tmp_path, files, Room())
    assert {path.name for path in image.iterdir() if path.stat().st_ino not in synced} == set()


@pytest.mark.parametrize(
    "parts",
    [
        {"kernel": bzimage(gzip.compress(bytes(32 * MIB), mtime=0), size_behind=False)},
        {"kernel": vmlinux(), "modules": tar_of([f"m{number}.ko" for number in range(4)], b"\1" * (8 * MIB))},
        {"kernel": vmlinux(), "rootfs": tar_of(["ones"], b"\1" * (32 * MIB))},
    ],
    ids=["kernel", "modules", "rootfs"],
)
def test_what_a_part_becomes_takes_no_more_than_there_is_room_for(tmp_path: Path, parts: dict[str, bytes]) -> None:
    with pytest.raises(InsufficientResourcesError):
        built(tmp_path, parts, LimitedRoom(16 * MIB))
    taken = sum(path.stat().st_blocks * 512 for path in tmp_path.rglob("*") if path.name not in parts)
    assert taken < 18 * MIB
