"""Disks named in vm.json: what a guest can write is its own file, whatever made its instance; and it stays sparse."""

import asyncio
import contextlib
import os
from pathlib import Path

from supervisor.models import CheckpointRequest, CreateRequest, FanOutRequest, ForkRequest, Instance
from supervisor.system.sparse_files import shares_blocks
from tests.harness.jails import jail_root
from tests.harness.pagewalker_images import write_image
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.waiting import until_console_says

DISK_BYTES = 1 << 30
WRITTEN = b"disk" * 1024


def write_disked(home: Home, name: str, data: str = "data.raw") -> None:
    """Make an image with a sparse disk of a GiB that its guest can write, and one that it cannot."""
    drives = [
        {"drive_id": "data", "is_root_device": False, "path_on_host": data},
        {"drive_id": "tools", "is_root_device": False, "path_on_host": "tools.raw", "is_read_only": True},
    ]
    image = write_image(home.data / "images" / name, {"drives": drives})
    with (image / "data.raw").open("wb") as disk:
        disk.truncate(DISK_BYTES)
        os.pwrite(disk.fileno(), WRITTEN, DISK_BYTES // 2)
    (image / "tools.raw").write_bytes(WRITTEN)


def directory(home: Home, instance: Instance) -> Path:
    return home.data / "instances" / instance.id


def open_for_writing(pid: int) -> set[int]:
    """Return the inodes of the disks that a VMM can write to."""
    found = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        # An eventfd's or a closed one's leads nowhere.
        with contextlib.suppress(OSError):
            path = entry.readlink()
            flags = Path(f"/proc/{pid}/fdinfo/{entry.name}").read_text().partition("flags:")[2].split()[0]
            if path.name.startswith("disk.") and int(flags, 8) & os.O_ACCMODE != os.O_RDONLY:
                found.add(entry.stat().st_ino)
    return found


async def test_each_fork_writes_only_to_its_own_disks_and_they_stay_sparse(firecracker_home: Home) -> None:
    write_disked(firecracker_home, "disked")
    async with supervisor(firecracker_home) as running:
        client = running.client
        source = await client.create(CreateRequest(name="source", image="disked"))
        await until_console_says(directory(firecracker_home, source) / "console.log", "pass 1")
        taken = await client.fork("source", ForkRequest(name="taken", from_running=True, target_state="Running"))
        kept = await client.checkpoint("source", CheckpointRequest(name="kept"))
        await client.standby("source")
        share = ForkRequest(name="share", share_memory=True, target_state="Running")
        shares = await client.fork("source", share)
        file = share.model_copy(update={"name": "file", "memory_backend": "file"})
        others = [
            await client.fork("source", file),
            await client.fork("source", ForkRequest(name="copy", target_state="Running")),
            await client.fork("kept", share.model_copy(update={"name": "later"})),
            await client.fork("source", ForkRequest(name="cold", target_state="Stopped")),
        ]
        everyone = [source, taken, kept, shares, *others]
        disks = [directory(firecracker_home, one) / "disk.data" for one in everyone]
        assert len({disk.stat().st_ino for disk in disks}) == len(disks)
        for one, disk in zip(everyone, disks, strict=True):
            status = disk.stat()
            names = 1 + (jail_root(firecracker_home, one.id) / disk.name).exists()
            assert (status.st_size, status.st_nlink) == (DISK_BYTES, names)
            assert status.st_blocks * 512 < 1 << 20, "its holes are holes"
            with disk.open("rb") as content:
                assert os.pread(content.fileno(), len(WRITTEN), DISK_BYTES // 2) == WRITTEN
        for one in everyone:
            pid = (await client.instance(one.id)).vmm_pid
            if pid is not None:
                inode = (directory(firecracker_home, one) / "disk.data").stat().st_ino
                assert open_for_writing(pid) == {inode}, one.name
        with disks[everyone.index(shares)].open("r+b") as written:
            os.pwrite(written.fileno(), b"mine", 0)
        heads = await asyncio.to_thread(lambda: [head(disk) for disk in disks])
        assert [one for one in heads if one == b"mine"] == [b"mine"]


async def test_what_is_copied_of_disks_is_said_before(firecracker_home: Home) -> None:
    """Unless the file system shares the blocks of both: then a copy costs nothing before it is written to."""
    write_disked(firecracker_home, "disked")
    async with supervisor(firecracker_home) as running:
        client = running.client
        source = await client.create(CreateRequest(name="source", image="disked"))
        await until_console_says(directory(firecracker_home, source) / "console.log", "pass 1")
        await client.standby("source")
        found = await client.fan_out_estimate("source", FanOutRequest(count=4))
        (disk,) = [row for row in found.resources if row.name == "disk"]
        if shares_blocks(firecracker_home.data):
            assert (found.copied_bytes, disk.basis) == (0, "a record and logs; free blocks")
        else:
            written = (directory(firecracker_home, source) / "disk.data").stat().st_blocks * 512
            assert (found.copied_bytes, disk.per_fork > written) == (written, True)
            assert disk.basis == "a record, logs and copies of its disks; free blocks"


def head(disk: Path) -> bytes:
    with disk.open("rb") as content:
        return content.read(4)


async def test_a_disk_outside_of_the_image_is_refused(firecracker_home: Home) -> None:
    """By its absolute path, which a snapshot would bake in: forks would open one and the same file."""
    write_disked(firecracker_home, "absolute", str(firecracker_home.root / "data.raw"))
    (firecracker_home.root / "data.raw").write_bytes(WRITTEN)
    async with supervisor(firecracker_home) as running:
        error = await refused(running.client.create(CreateRequest(name="source", image="absolute")))
        assert "has to be a path inside the image's directory, without / at its start" in error.message
        assert await running.client.instances() == []
