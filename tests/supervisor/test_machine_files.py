"""What an instance's VMM makes and opens in its directory: made for it, and looked at before anything is started."""

import asyncio
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from forktui.client.api import SupervisorClient
from supervisor.errors import MachineFileError
from supervisor.images import machine_files
from supervisor.images.readiness import make_way_for_vmm, own_disk_marks
from supervisor.models import CheckpointRequest, CreateRequest, FanOutRequest, ForkRequest, State
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, supervisor, walking_source
from tests.harness.waiting import until_console_says
from tests.supervisor.test_hostile_images import BOOT, write_image

SOCKET = "run/deep/v.sock"
DRIVES = [
    {"drive_id": "data", "is_root_device": False, "path_on_host": "root.img"},
    {"drive_id": "tools", "is_root_device": False, "path_on_host": "tools.img", "is_read_only": True},
]
WALKING = {"kernel_image_path": "vmlinux", "boot_args": "passes=0 hot_mib=4"}
DISK_BYTES = 4096


def write_machine(home: Home, **sections: object) -> None:
    directory = write_image(home.data / "images", "machine", {**BOOT, "boot-source": WALKING, **sections})
    (directory / "tools.img").write_bytes(b"tool" * (DISK_BYTES // 4))


async def walks(home: Home, instance_id: str) -> None:
    await until_console_says(home.data / "instances" / instance_id / "console.log", "pass 1")


async def test_a_socket_in_a_directory_below_is_made_whichever_way_an_instance_comes_to_run(
    firecracker_home: Home,
) -> None:
    write_machine(firecracker_home, vsock={"guest_cid": 3, "uds_path": SOCKET})
    instances = firecracker_home.data / "instances"
    async with supervisor(firecracker_home) as running:
        client = running.client
        source = await client.create(CreateRequest(name="source", image="machine"))
        assert (instances / source.id / SOCKET).is_socket()
        await walks(firecracker_home, source.id)
        kept = await client.checkpoint("source", CheckpointRequest(name="kept"))
        copy = await client.fork("source", ForkRequest(name="copy", from_running=True, target_state="Running"))
        await client.standby("source")
        fork = await client.fork("source", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        made = await client.fan_out("source", FanOutRequest(count=2))
        assert all(child.error is None for child in made.children), made
        children = [child.instance.id for child in made.children if child.instance is not None]
        cold = await client.fork("source", ForkRequest(name="cold", target_state="Stopped"))
        await client.start("cold")
        await client.restore("kept")
        for one in (copy.id, fork.id, *children, cold.id, kept.id):
            assert (instances / one / SOCKET).is_socket(), one
        await client.stop("kept")
        await asyncio.to_thread(shutil.rmtree, instances / kept.id / "run")
        await client.start("kept")
        assert (instances / kept.id / SOCKET).is_socket()


def test_what_a_vmm_puts_in_the_way_of_its_own_directories_is_followed_nowhere(tmp_path: Path) -> None:
    write_image(tmp_path, "instance", {**BOOT, "vsock": {"guest_cid": 3, "uds_path": "run/deep/v.sock"}})
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "instance" / "run").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(MachineFileError, match=r"vm: .*/run/deep cannot be made: Not a directory; remove what"):
        make_way_for_vmm("vm", tmp_path / "instance")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, os.mkfifo, lambda path: path.symlink_to("gone")])
def test_what_is_in_the_way_of_a_vmms_socket_is_named(tmp_path: Path, make: Callable[[Path], object]) -> None:
    write_image(tmp_path, "instance", {**BOOT, "vsock": {"guest_cid": 3, "uds_path": "run/v.sock"}})
    make_way_for_vmm("vm", tmp_path / "instance")
    make(tmp_path / "instance" / "run" / "v.sock")
    with pytest.raises(MachineFileError, match=r"^vm: .*/run/v.sock is in the way of a socket of its VMM; remove it$"):
        make_way_for_vmm("vm", tmp_path / "instance")


@pytest.mark.parametrize("name", ["vmlinux", "vm.json"])
def test_a_fork_gets_nothing_that_a_link_leads_to(tmp_path: Path, name: str) -> None:
    source = write_image(tmp_path, "source")
    (source / name).rename(tmp_path / "secret")
    (source / name).symlink_to(tmp_path / "secret")
    (tmp_path / "fork").mkdir()
    with pytest.raises((MachineFileError, OSError), match="a link out of its directory"):
        machine_files.copy_fixed(source, tmp_path / "fork")
    assert list((tmp_path / "fork").iterdir()) == []


def gone(disk: Path) -> None:
    disk.unlink()


def grown(disk: Path) -> None:
    resized(disk, DISK_BYTES + 512)


def shrunk(disk: Path) -> None:
    resized(disk, DISK_BYTES - 512)


def resized(disk: Path, size: int) -> None:
    """Have a disk of another size in its place; the image's, which may be the same file, stays as it is."""
    content = disk.read_bytes()
    disk.unlink()
    disk.write_bytes(content)
    os.truncate(disk, size)


def replaced(disk: Path) -> None:
    """Have a disk of the same size and content in its place."""
    resized(disk, DISK_BYTES)


def fifo(disk: Path) -> None:
    disk.unlink()
    os.mkfifo(disk)


VERBS: dict[str, Callable[[SupervisorClient], Any]] = {
    "restore": lambda client: client.restore("vm"),
    "a shared fork": lambda client: client.fork("vm", ForkRequest(share_memory=True, target_state="Running")),
    "a copy": lambda client: client.fork("vm", ForkRequest(target_state="Running")),
    "a fan-out": lambda client: client.fan_out("vm", FanOutRequest(count=2)),
    "its estimate": lambda client: client.fan_out_estimate("vm", FanOutRequest(count=2)),
}


@pytest.mark.parametrize("disk", ["disk.data", "disk.tools"])
async def test_a_disk_that_is_not_what_it_was_is_named_before_anything_is_started(
    firecracker_home: Home, disk: str
) -> None:
    write_machine(firecracker_home, drives=DRIVES)
    async with supervisor(firecracker_home) as running:
        client = running.client
        vm = await client.create(CreateRequest(name="vm", image="machine"))
        await walks(firecracker_home, vm.id)
        await client.standby("vm")
        path = firecracker_home.data / "instances" / vm.id / disk
        await asyncio.to_thread(shutil.copy2, path, firecracker_home.root / "kept")
        for spoil, words in ((gone, "is gone"), (grown, "has grown"), (shrunk, "has shrunk"), (fifo, "it is a FIFO")):
            spoil(path)
            for verb, ask in VERBS.items():
                error = await refused(ask(client))
                assert (error.status, error.code) == (409, "machine_file_changed"), (verb, error.message)
                assert error.message.startswith("vm: "), error.message
                assert f"{path} " in error.message, verb
                assert words in error.message, verb
            assert [one.state for one in await client.instances()] == [State.STANDBY]
            assert len(list((firecracker_home.data / "templates").iterdir())) == 0, "nothing is left of it"
            path.unlink(missing_ok=True)
            await asyncio.to_thread(shutil.copy2, firecracker_home.root / "kept", path)
        await client.restore("vm")
        await client.stop("vm")
        grown(path)
        await client.start("vm")
        await client.stop("vm")
        for name in (disk, "kernel"):
            gone(path.with_name(name))
            error = await refused(client.start("vm"))
            assert (error.status, error.code) == (409, "machine_file_changed")
            assert error.message == f"vm: {path.with_name(disk)} is gone; put it back" or name == "kernel"


@pytest.mark.parametrize("spoil", [gone, grown, shrunk, replaced])
@pytest.mark.parametrize("disk", ["disk.data", "disk.tools"])
async def test_a_disk_that_is_another_beneath_its_vm_is_named_and_the_vm_runs_on(
    firecracker_home: Home, disk: str, spoil: Callable[[Path], None]
) -> None:
    write_machine(firecracker_home, drives=DRIVES)
    async with supervisor(firecracker_home) as running:
        client = running.client
        vm = await client.create(CreateRequest(name="vm", image="machine"))
        await walks(firecracker_home, vm.id)
        path = firecracker_home.data / "instances" / vm.id / disk
        kept = path.with_name("kept")
        os.link(path, kept)
        spoil(path)
        asked = (
            client.standby("vm"),
            client.checkpoint("vm"),
            client.fork("vm", ForkRequest(from_running=True, target_state="Running")),
        )
        for ask in asked:
            error = await refused(ask)
            assert (error.status, error.code) == (409, "machine_file_changed"), error.message
            assert str(path) in error.message
        assert [one.state for one in await client.instances()] == [State.RUNNING]
        kept.replace(path)
        await client.standby("vm")
        await client.restore("vm")


async def test_forks_go_on_without_a_list_where_that_is_no_file(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        vm = await walking_source(client, "vm", "passes=0", "hot_mib=4")
        await client.standby("vm")
        os.mkfifo(embedded.data / "instances" / vm.id / "hot_pages")
        fork = await client.fork("vm", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        await until_console_says(embedded.data / "instances" / fork.id / "console.log", "pass 2")


def test_a_disk_of_a_vmm_that_has_ended_is_not_called_another(tmp_path: Path) -> None:
    write_image(tmp_path, "instance", {**BOOT, "drives": DRIVES[:1]})
    ended = subprocess.Popen(["true"])
    ended.wait()
    assert [disk.name for disk in own_disk_marks("vm", tmp_path / "instance", ended.pid)] == ["root.img"]
