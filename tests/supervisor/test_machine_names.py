"""Names in a vm.json: none may be in the place of the supervisor's own, or of another, however it is written."""

import os
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import InvalidImageError
from supervisor.images import boot_image, snapshot_image
from tests.supervisor.test_hostile_images import BOOT, DRIVE, write_image
from tests.supervisor.test_image_catalog import MIB, firecracker_state

OTHER = {"drive_id": "data", "is_root_device": False, "path_on_host": "data.img"}
READ_ONLY = {"is_read_only": True}


def loaded(tmp_path: Path, config: dict[str, Any], *, snapshot: bool = False) -> object:
    """Load an image of this configuration, which has two disks and a link to one of them."""
    directory = write_image(tmp_path, "linux", {**BOOT, **config})
    (directory / "data.img").write_bytes(b"data" * 1024)
    os.link(directory / "root.img", directory / "hard.img")
    (directory / "link.img").symlink_to("root.img")
    if snapshot:
        (directory / "state").write_bytes(firecracker_state())
        (directory / "mem").touch()
        os.truncate(directory / "mem", 64 * MIB)
    return snapshot_image.load(tmp_path, "linux")


def vsock(path: str) -> dict[str, Any]:
    return {"vsock": {"guest_cid": 3, "uds_path": path}}


OURS = (
    *("mem.0", "./mem.0", "mem.0.new", "state.12", "instance.json", "vm.json", "console.log", "vmm.log", "vmm.stderr"),
    *("mem.0/v.sock", "hot_pages/a/b", "./console.log/v.sock", ".instance.json.new", "vmm.log.1", ".//mem.3"),
)


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("path", OURS)
def test_a_socket_of_the_vmms_in_the_place_of_a_file_of_ours_is_refused(
    tmp_path: Path, path: str, snapshot: bool
) -> None:
    with pytest.raises(InvalidImageError, match="is a name that an instance's own files have: give it another name"):
        loaded(tmp_path, vsock(path), snapshot=snapshot)


@pytest.mark.parametrize("path", ["a/../mem.0", "../v.sock", "/tmp/v.sock", "v.sock/", "a/.", ".", "", "v\0"])
def test_a_socket_that_is_not_a_file_below_the_instance_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidImageError, match=r"vsock.uds_path: .* is refused: it has to be "):
        loaded(tmp_path, vsock(path))


def test_a_socket_with_a_path_that_no_socket_has_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidImageError, match=r"vsock.uds_path may have 107 bytes, and it has 108"):
        loaded(tmp_path, vsock("d/" * 50 + "v" * 8))


@pytest.mark.parametrize(
    ("path", "snapshot"),
    [
        *(("kernel", False), ("disk.root", False), ("kernel/v.sock", False), ("./disk.root/a/b", False)),
        *(("vmlinux", True), ("root.img", True), ("root.img/v.sock", True), ("vmlinux/x", True)),
    ],
)
def test_a_socket_in_the_place_of_a_disk_or_a_kernel_is_refused(tmp_path: Path, path: str, snapshot: bool) -> None:
    with pytest.raises(InvalidImageError, match="in the way of"):
        loaded(tmp_path, {**vsock(path), "drives": [DRIVE]}, snapshot=snapshot)


@pytest.mark.parametrize(
    ("path", "snapshot"),
    [("v.sock", False), ("run/a/v.sock", True), ("kernel", True), ("vmlinux", False), ("mem", False)],
)  # fmt: skip
def test_any_other_socket_is_fine(tmp_path: Path, path: str, snapshot: bool) -> None:
    assert loaded(tmp_path, {**vsock(path), "drives": [DRIVE]}, snapshot=snapshot)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"drives": [DRIVE, {**OTHER, "drive_id": "root"}]}, "drives: drive_id 'root' is given twice: give it another"),
        ({"pmem": [{"id": "p", "path_on_host": "root.img"}] * 2}, "pmem: id 'p' is given twice"),
        ({"network-interfaces": [{"iface_id": "e", "host_dev_name": "t"}] * 2}, "iface_id 'e' is given twice"),
    ],
)
def test_an_id_that_is_given_twice_is_refused(tmp_path: Path, config: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidImageError, match=reason):
        loaded(tmp_path, config)


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize(
    "drives",
    [
        *([DRIVE, {**OTHER, "path_on_host": name}] for name in ("root.img", "./root.img", "hard.img", "link.img")),
        [{**DRIVE, **READ_ONLY}, {**OTHER, "path_on_host": "link.img"}],
        [{**OTHER, "path_on_host": "hard.img"}, {**DRIVE, **READ_ONLY}],
        [{**DRIVE, "path_on_host": "vmlinux"}],
    ],
)
def test_two_devices_on_one_file_that_is_written_are_refused(tmp_path: Path, drives: Any, snapshot: bool) -> None:
    with pytest.raises(InvalidImageError, match=r"are one file, .*, which the guest can write|in the way of"):
        loaded(tmp_path, {"drives": drives}, snapshot=snapshot)


@pytest.mark.parametrize("snapshot", [False, True])
@pytest.mark.parametrize("name", ["root.img", "hard.img", "link.img"])
def test_two_devices_that_only_read_one_file_share_it(tmp_path: Path, name: str, snapshot: bool) -> None:
    """As two guests may: nothing that one does is seen by the other."""
    drives = [{**DRIVE, **READ_ONLY}, {**OTHER, **READ_ONLY, "path_on_host": name}]
    image = loaded(tmp_path, {"drives": drives}, snapshot=snapshot)
    instance = tmp_path / "instance"
    instance.mkdir()
    if isinstance(image, snapshot_image.SnapshotImage):
        snapshot_image.place_snapshot(image, snapshot_image.snapshot_files(image), True, instance)
        assert (instance / name).read_bytes() == (instance / "root.img").read_bytes()
    else:
        assert isinstance(image, boot_image.BootImage)
        boot_image.prepare(image, instance, memory_mib=64, vcpus=1)
        assert (instance / "disk.root").samefile(instance / "disk.data")
