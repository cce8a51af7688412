"""What an instance's directory says of it: the layers of its memory, and its devices."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from supervisor.images.machine_info import machine_info
from supervisor.models import DiskInfo, InterfaceInfo, LayerInfo, State
from supervisor.store.records import InstanceRecord, SnapshotFiles
from tests.supervisor.test_hostile_images import BOOT, write_image

LAYERS = ("mem.1", "mem.0")


def record(layers: tuple[str, ...] = ()) -> InstanceRecord:
    """An instance in Standby, with these layers."""
    return InstanceRecord(
        id="vm",
        name="vm",
        image="machine",
        state=State.STANDBY,
        hypervisor="firecracker",
        size_bytes=1 << 20,
        vcpus=1,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        snapshot=SnapshotFiles(state="state.1", layers=layers, snapshot_version="1") if layers else None,
    )


def test_layers_are_told_with_what_they_take_and_how_many_names_they_have(tmp_path: Path) -> None:
    for name in LAYERS:
        with (tmp_path / name).open("wb") as file:
            file.truncate(1 << 20)
            file.write(b"page" * 1024)
    os.link(tmp_path / "mem.0", tmp_path / "of-a-fork")
    diff, base = machine_info(tmp_path, record(LAYERS)).layers
    assert (diff.file, diff.bytes, diff.names) == ("mem.1", 1 << 20, 1)
    assert (base.file, base.names) == ("mem.0", 2)
    assert 4096 <= diff.disk_bytes < diff.bytes


def test_a_layer_that_is_gone_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "mem.0").write_bytes(b"")
    assert machine_info(tmp_path, record(LAYERS)).layers == (LayerInfo(file="mem.0", bytes=0, disk_bytes=0, names=1),)


def test_devices_are_those_of_its_vm_json(tmp_path: Path) -> None:
    drive = {"drive_id": "tools", "is_root_device": False, "path_on_host": "tools.img", "is_read_only": True}
    interface = {"iface_id": "eth0", "guest_mac": "06:00:AC:10:00:02", "host_dev_name": "tap0"}
    sections = {"vsock": {"guest_cid": 3, "uds_path": "v.sock"}, "drives": [drive], "network-interfaces": [interface]}
    found = machine_info(write_image(tmp_path, "vm", {**BOOT, **sections}), record())
    assert found.configured
    assert found.disks == (DiskInfo(id="tools", file="tools.img", read_only=True),)
    assert found.interfaces == (InterfaceInfo(id="eth0", mac="06:00:AC:10:00:02", host_device="tap0"),)
    assert (found.vsock_cid, found.vsock_socket) == (3, "v.sock")


@pytest.mark.parametrize("interfaces", [5, [5], {"iface_id": "eth0"}, [{"iface_id": 1, "guest_mac": ["x"]}], None])
def test_a_section_that_nobody_has_checked_is_told_as_far_as_it_can_be(tmp_path: Path, interfaces: object) -> None:
    found = machine_info(write_image(tmp_path, "vm", {**BOOT, "network-interfaces": interfaces}), record())
    assert found.configured
    assert found.interfaces in ((), (InterfaceInfo(id=""),))


@pytest.mark.parametrize("text", [None, b"no JSON", b"{}"])
def test_without_a_vm_json_that_can_be_read_no_device_is_known(tmp_path: Path, text: bytes | None) -> None:
    if text is not None:
        (tmp_path / "vm.json").write_bytes(text)
    assert not machine_info(tmp_path, record()).configured
