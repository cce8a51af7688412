"""The catalog of images: what is dropped in appears, and what is a snapshot makes instances that begin in Standby."""

import asyncio
import json
import os
import shutil
import struct
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path

import httpx
import hypeman
import pytest

from forktui.client.api import SupervisorClient
from supervisor.embedded import SNAPSHOT_VERSION
from supervisor.errors import BadRequestError, InvalidImageError
from supervisor.guests.boot import kernel_path
from supervisor.images import machine_files, snapshot_image
from supervisor.images.catalog import changes
from supervisor.models import Activity, CreateRequest, FanOutRequest, ForkRequest, HypervisorName, ImageInfo, State
from supervisor.vmm.hypervisor import Hypervisor
from tests.harness.refusals import refused
from tests.harness.supervisor_process import PATIENCE, Home, supervisor, walking_source
from tests.harness.waiting import until_console_says

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MIB = 1 << 20


def info(name: str, error: str | None = None) -> ImageInfo:
    return ImageInfo(name=name, status="failed" if error else "ready", error=error, created_at=BEGIN, kind="boot")


def test_changes_are_told_once_each() -> None:
    before = {
        one.name: one for one in (info("same"), info("gone"), info("fixed", "x"), info("worse"), info("bad", "x"))
    }
    after = {one.name: one for one in (info("same"), info("fixed"), info("worse", "y"), info("bad", "x"), info("new"))}
    assert changes(before, after) == [
        ("info", "gone: the image is gone"),
        ("info", "fixed: an image to make instances from"),
        ("warning", "worse: the image cannot be used: y"),
        ("info", "new: an image to make instances from"),
    ]
    assert changes(after, after) == []


# Snapshots


def firecracker_state(
    version: bytes = b"6.0.0", magic: int = 0x0710_1984_8664_0000, *, mem_size_mib: int = 64
) -> bytes:
    return struct.pack("<QQ", magic, len(version)) + version + struct.pack("<Q", mem_size_mib) + bytes(200)


def embedded_state(mem_size_mib: int = 64, vcpu_count: int = 2) -> bytes:
    registers = {"walks": 1, "passes": 1}
    return json.dumps(
        {
            "magic": "forktui embedded VMM state",
            "version": SNAPSHOT_VERSION,
            "vmm_version": "0.1.0",
            "vcpu_count": vcpu_count,
            "mem_size_mib": mem_size_mib,
            "registers": registers,
        }
    ).encode()


def write_snapshot(directory: Path, state: bytes, mem_bytes: int, config: object = None) -> Path:
    directory.mkdir(parents=True)
    (directory / "state").write_bytes(state)
    (directory / "mem").touch()
    os.truncate(directory / "mem", mem_bytes)
    if config is not None:
        (directory / "vm.json").write_text(json.dumps(config))
    return directory


CONFIG = {
    "boot-source": {"kernel_image_path": "vmlinux"},
    "drives": [{"drive_id": "root", "is_root_device": True, "path_on_host": "disks/root.img"}],
    "machine-config": {"vcpu_count": 3, "mem_size_mib": 64},
    "logger": {"log_path": "fc.log"},
}


def test_a_snapshot_of_firecracker_is_read_and_placed_where_its_state_looks_for_its_disks(tmp_path: Path) -> None:
    directory = write_snapshot(tmp_path / "snap", firecracker_state(b"6.1.3"), 64 * MIB, CONFIG)
    (directory / "vmlinux").write_text("kernel")
    (directory / "disks").mkdir()
    (directory / "disks" / "root.img").write_text("disk")
    assert snapshot_image.is_snapshot(directory)
    image = snapshot_image.load_snapshot(directory)
    assert (image.hypervisor, image.snapshot_version) == ("firecracker", "6.1.3")
    assert (image.size_bytes, image.vcpus) == (64 * MIB, 3)
    instance = tmp_path / "instance"
    instance.mkdir()
    files = snapshot_image.snapshot_files(image)
    snapshot_image.place_snapshot(image, files, True, instance)
    assert (instance / files.state).samefile(directory / "state")
    assert (instance / files.layers[0]).samefile(directory / "mem")
    assert (instance / "vmlinux").samefile(directory / "vmlinux")
    assert not (instance / "disks" / "root.img").samefile(directory / "disks" / "root.img")
    assert (instance / "disks" / "root.img").read_text() == "disk"
    config = json.loads((instance / "vm.json").read_text())
    assert "logger" not in config
    assert config["machine-config"] == {"vcpu_count": 3, "mem_size_mib": 64, "track_dirty_pages": True}
    unborn = tmp_path / "unborn"
    unborn.mkdir()
    assert machine_files.writable_disks(instance) == ("disks/root.img",)
    machine_files.copy_disks(instance, unborn, machine_files.writable_disks(instance))
    machine_files.copy_fixed(instance, unborn)
    assert (unborn / "disks" / "root.img").read_text() == "disk"
    assert (unborn / "vmlinux").samefile(directory / "vmlinux")


@pytest.mark.parametrize(
    ("state", "mem_bytes", "config", "reason"),
    [
        (
            b"garbage",
            64 * MIB,
            None,
            "state is neither Firecracker's of a version before 1.15.0, nor the embedded VMM's",
        ),
        (b"", 64 * MIB, None, "state is neither Firecracker's of a version before 1.15.0, nor the embedded VMM's"),
        (firecracker_state(b"new"), 64 * MIB, None, "no version that can be read"),
        (firecracker_state(magic=0x0710_1984_8664_0001), 64 * MIB, None, "state is neither"),
        (firecracker_state(), 64 * MIB + 4096, None, "mem has 67112960 bytes"),
        (firecracker_state(), 0, None, "mem has 0 bytes"),
        (firecracker_state(), 63 * MIB, None, "mem has 66060288 bytes, and state says 67108864; copy both whole"),
        (firecracker_state(), 65 * MIB, None, "mem has 68157440 bytes, and state says 67108864; copy both whole"),
        (firecracker_state(), 32 * MIB, CONFIG, "vmlinux is no file"),
        (firecracker_state(), 32 * MIB, {"boot-source": {}}, "boot-source.kernel_image_path: it is missing"),
    ],
)
def test_a_snapshot_that_cannot_be_used_says_why_in_one_line(
    tmp_path: Path, state: bytes, mem_bytes: int, config: object, reason: str
) -> None:
    directory = write_snapshot(tmp_path / "snap", state, mem_bytes, config)
    with pytest.raises(InvalidImageError) as refused:
        snapshot_image.load_snapshot(directory)
    assert refused.value.message.startswith("image snap: ")
    assert reason in refused.value.message
    assert "\n" not in refused.value.message


def test_a_memory_of_another_size_than_vm_json_says_is_refused(tmp_path: Path) -> None:
    config = {key: CONFIG[key] for key in ("boot-source", "machine-config")}
    directory = write_snapshot(tmp_path / "snap", firecracker_state(mem_size_mib=32), 32 * MIB, config)
    (directory / "vmlinux").write_text("kernel")
    with pytest.raises(InvalidImageError, match=r"mem has 33554432 bytes, and vm.json says 67108864"):
        snapshot_image.load_snapshot(directory)


@pytest.mark.parametrize(
    "name",
    [
        *("mem.0", "state.12", "./mem.0", "mem.3.new", "instance.json", "vm.json", "console.log", "vmm.log.1"),
        *("mem.1/disk.img", "console.log/x", "./state.2.new/a/b", ".instance.json.new", ".any.json.new/disk.img"),
    ],
)
def test_a_disk_that_is_called_as_a_file_of_the_instances_own_is_refused(tmp_path: Path, name: str) -> None:
    """It would be written over that, or that over it; a directory of such a name would be in its way."""
    drive = {"drive_id": "root", "is_root_device": True, "path_on_host": name}
    directory = write_snapshot(tmp_path / "snap", firecracker_state(), 64 * MIB, {**CONFIG, "drives": [drive]})
    for file in ("vmlinux", name):
        (directory / file).parent.mkdir(parents=True, exist_ok=True)
        with (directory / file).open("ab"):
            pass
    with pytest.raises(
        InvalidImageError, match=r"image snap: .* is a name that an instance's own files have"
    ) as refused:
        snapshot_image.load_snapshot(directory)
    assert refused.value.message.startswith(f"image snap: {name}: {name.removeprefix('./').partition('/')[0]} is ")


@pytest.mark.parametrize(
    "name", ["state.img", "mem.0.img", "disks/mem.0", "vmm.img", ".disk.json", "disks/.x.json.new"]
)
def test_a_disk_may_be_called_nearly_so(tmp_path: Path, name: str) -> None:
    drive = {"drive_id": "root", "is_root_device": True, "path_on_host": name}
    directory = write_snapshot(tmp_path / "snap", firecracker_state(), 64 * MIB, {**CONFIG, "drives": [drive]})
    (directory / "disks").mkdir()
    for file in ("vmlinux", name):
        (directory / file).touch()
    assert snapshot_image.load_snapshot(directory).size_bytes == 64 * MIB


def test_half_a_snapshot_is_one_that_cannot_be_used(tmp_path: Path) -> None:
    directory = write_snapshot(tmp_path / "snap", firecracker_state(), MIB)
    (directory / "mem").unlink()
    assert snapshot_image.is_snapshot(directory)
    with pytest.raises(InvalidImageError, match="mem is no file in its directory"):
        snapshot_image.load_snapshot(directory)
    (directory / "vm.json").write_text("{}")
    assert not snapshot_image.is_snapshot(directory), "an image that boots may have a file of this name"


@pytest.mark.parametrize(
    ("name", "ours", "fine"),
    [
        ("firecracker", "6.0.0", True),
        ("firecracker", "6.4.0", True),
        ("firecracker", "5.9.0", False),
        ("firecracker", "7.0.0", False),
        ("embedded", "6.0.0", False),
    ],
)
def test_a_snapshot_needs_the_vmm_that_wrote_it_or_a_newer_minor_version(
    tmp_path: Path, name: HypervisorName, ours: str, fine: bool
) -> None:
    image = snapshot_image.load_snapshot(
        write_snapshot(tmp_path / "snap", firecracker_state(b"6.0.2", mem_size_mib=1), MIB)
    )
    hypervisor = Hypervisor(name, (name,), "1.0", ours)
    if fine:
        snapshot_image.check_snapshot(image, hypervisor)
    else:
        with pytest.raises(InvalidImageError, match=r"^image snap "):
            snapshot_image.check_snapshot(image, hypervisor)


@pytest.mark.parametrize(
    ("asked", "fine"), [({}, True), ({"size": "64MB"}, True), ({"size": "65MB"}, False), ({"cmd": ["x"]}, False)]
)
def test_what_is_decided_in_a_snapshot_cannot_be_asked_for(
    tmp_path: Path, asked: dict[str, object], fine: bool
) -> None:
    image = snapshot_image.load_snapshot(write_snapshot(tmp_path / "snap", firecracker_state(), 64 * MIB))
    request = CreateRequest.model_validate({"name": "x", "image": "snap", **asked})
    if fine:
        snapshot_image.check_request(image, request)
    else:
        with pytest.raises(BadRequestError, match="image snap is a snapshot"):
            snapshot_image.check_request(image, request)


# Over the socket


async def reported(client: SupervisorClient, words: str, do: object) -> Activity:
    """Do something once the events are listened to, and return the first line that has these words."""
    async with asyncio.timeout(PATIENCE), aclosing(client.events()) as events:
        await anext(events)
        do()  # type: ignore[operator]
        async for _, event in events:
            if isinstance(event, Activity) and words in event.message:
                return event
    raise AssertionError(f"nothing was reported of {words}")


def drop(images: Path, name: str, config: object) -> Path:
    """Make an image as a whole: under another name first, so that half of it is never seen."""
    directory = images / f".{name}"
    directory.mkdir(parents=True)
    shutil.copy(kernel_path(), directory / "vmlinux")
    (directory / "vm.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return directory.rename(images / name)


async def test_what_is_dropped_in_appears_and_what_is_broken_appears_with_its_error(embedded: Home) -> None:
    images = embedded.data / "images"
    drop(images, "old-and-broken", "{")
    async with supervisor(embedded) as running:
        client = running.client
        assert [(one.name, one.status) for one in await client.images()] == [
            ("pagewalker", "ready"),
            ("old-and-broken", "failed"),
        ]
        fine = {
            "boot-source": {"kernel_image_path": "vmlinux"},
            "machine-config": {"vcpu_count": 1, "mem_size_mib": 64},
        }
        seen = await reported(client, "good: ", lambda: drop(images, "good", fine))
        assert (seen.level, seen.message) == ("info", "good: an image to make instances from")
        seen = await reported(client, "bad: ", lambda: drop(images, "bad", "{"))
        assert seen.level == "warning"
        assert seen.message.startswith("bad: the image cannot be used: image bad: ")
        assert "\n" not in seen.message
        (bad,) = (one for one in await client.images() if one.name == "bad")
        assert (bad.status, bad.error) == ("failed", seen.message.partition("used: ")[2])
        seen = await reported(
            client, "bad: ", lambda: (images / "bad" / "vm.json").write_text(json.dumps(fine)) and None
        )
        assert seen.message == "bad: an image to make instances from"
        seen = await reported(client, "good: ", lambda: shutil.rmtree(images / "good"))
        assert seen.message in ("good: the image is gone", "good: the image cannot be used")
        await asyncio.to_thread((images / "empty").mkdir)
        (empty,) = (one for one in await client.images() if one.name == "empty")
        assert empty.error is not None and "vm.json" in empty.error
        sdk = hypeman.Hypeman(
            api_key="x",
            base_url="http://localhost",
            http_client=httpx.Client(transport=httpx.HTTPTransport(uds=str(embedded.socket))),
        )
        listed = await asyncio.to_thread(sdk.images.list)
        assert {one.name: one.status for one in listed}["bad"] == "ready"
    assert "old-and-broken: the image cannot be used" in running.log.read_text()


async def made_snapshot(home: Home, client: SupervisorClient) -> Path:
    """Drop the snapshot of a guest that walks for ever in as the image `snap`, without the instance that it was of."""
    source = await walking_source(client, "origin", "passes=0", "hot_mib=4")
    await client.standby("origin")
    instance = home.data / "instances" / source.id
    directory = home.data / "images" / ".snap"
    directory.mkdir()
    for name in ("state", "mem"):
        await asyncio.to_thread(shutil.copy, next(instance.glob(f"{name}.*")), directory / name)
    for name in ("vm.json", "kernel"):
        await asyncio.to_thread(shutil.copy, instance / name, directory / name)
    await client.delete("origin")
    return directory


async def test_an_instance_of_a_snapshot_begins_in_standby_and_its_forks_verify_their_memory(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        directory = await made_snapshot(home, client)
        for name in ("vm.json", "kernel"):
            (directory / name).unlink()
        seen = await reported(client, "snap: ", lambda: directory.rename(home.data / "images" / "snap"))
        assert seen.message == "snap: a snapshot to make instances from"
        (listed,) = (one for one in await client.images() if one.name == "snap")
        assert (listed.kind, listed.hypervisor, listed.memory_bytes) == ("snapshot", home.hypervisor, 128 * MIB)

        made = await client.create(CreateRequest(name="vm", image="snap"))
        assert (made.state, made.has_snapshot, made.vmm_pid) == (State.STANDBY, True, None)
        assert (made.hypervisor, made.size_bytes) == (home.hypervisor, 128 * MIB)
        result = await client.fan_out("vm", FanOutRequest(count=2))
        assert all(child.error is None for child in result.children)
        copy = await client.fork("vm", ForkRequest(name="copy", target_state="Running"))
        for child in (*(child.instance for child in result.children), copy):
            assert child is not None
            await until_console_says(home.data / "instances" / child.id / "console.log", "pass 2")
        for made_child in result.children:
            await client.delete(made_child.name)
        await client.restore("vm")
        await until_console_says(home.data / "instances" / made.id / "console.log", "pass 2")
        for name in (made.id, copy.id):
            assert "CORRUPT" not in (home.data / "instances" / name / "console.log").read_text()
        checkpoint = await client.checkpoint("vm")
        assert (checkpoint.state, checkpoint.layers) == (State.STANDBY, 2)
        await client.delete(checkpoint.id)
        assert (await client.standby("vm")).layers == 3, "diff layers, the oldest of which is the image's memory"
        assert (home.data / "images" / "snap" / "mem").stat().st_size == 128 * MIB

        await client.restore("vm")
        await client.stop("vm")
        error = await refused(client.start("vm"))
        assert (error.status, error.code) == (409, "invalid_state")
        assert "snapshot without vm.json" in error.message
        for name in ("vm", "copy"):
            await client.delete(name)
        assert await client.instances() == []
    assert home.processes() == []


async def test_with_vm_json_an_instance_of_a_snapshot_can_also_boot(home: Home) -> None:
    async with supervisor(home) as running:
        client = running.client
        (await made_snapshot(home, client)).rename(home.data / "images" / "snap")
        made = await client.create(CreateRequest(name="vm", image="snap"))
        assert made.state is State.STANDBY
        await client.restore("vm")
        await client.stop("vm")
        console = home.data / "instances" / made.id / "console.log"
        # It may end in the middle of a line.
        console.unlink()
        await client.start("vm")
        await until_console_says(console, "ready")
        await client.wait("vm", State.RUNNING, PATIENCE)
        checkpoint = await client.checkpoint("vm")
        assert checkpoint.layers == 1, "it was booted: its first diff layer is relative to zeros"
        await client.restore(checkpoint.id)
        await until_console_says(home.data / "instances" / checkpoint.id / "console.log", "pass 2")
        await client.delete(checkpoint.id)
        other = "firecracker" if home.hypervisor == "embedded" else "embedded"
        for asked in ({"size": "64MB"}, {"cmd": ["quiet"]}, {"hypervisor": other}):
            request = CreateRequest.model_validate({"name": "x", "image": "snap", **asked})
            assert (await refused(client.create(request))).status in (400, 501)
        await client.delete("vm")
        assert await client.instances() == []
