"""What a clone learns of itself: by MMDS, or from a disk of its own."""

import asyncio
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from supervisor.images.metadata import LARGEST_DISK
from supervisor.models import CheckpointRequest, CreateRequest, FanOutRequest, ForkRequest, Instance, State
from tests.harness.jails import api_socket
from tests.harness.pagewalker_images import write_image
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.tap import tap
from tests.harness.unix_http import request
from tests.harness.waiting import until_console_says

SIZE = 64 << 10
ROLE = {"role": "web", "tiers": [1, 2]}


OWN = {"forktui": {"metadata_drive": "metadata"}}
"""By which an image names its disk as the one for metadata."""


def write_told(home: Home, sections: Mapping[str, object] = OWN, *, size: int = SIZE, read_only: bool = True) -> Path:
    """Make an image whose guest has a disk for its metadata; pagewalker looks at none."""
    drive = {"drive_id": "metadata", "path_on_host": "metadata.img", "is_root_device": False, "is_read_only": read_only}
    directory = write_image(home.data / "images" / "told", {"drives": [drive], **sections})
    (directory / "metadata.img").write_bytes(bytes(size))
    return directory


def opened(instance: Instance) -> bytes:
    """Return what the guest's disk has, by the descriptor that its VMM holds."""
    for descriptor in Path(f"/proc/{instance.vmm_pid}/fd").iterdir():
        if str(descriptor.readlink()).endswith("/disk.metadata"):
            return descriptor.read_bytes()
    raise AssertionError("its VMM has no such disk open")


async def read(client: SupervisorClient, name: str) -> dict[str, Any]:
    data = await asyncio.to_thread(opened, await client.instance(name))
    assert len(data) == SIZE and data.endswith(b"\n")
    document: dict[str, Any] = json.loads(data)
    assert json.loads(data.splitlines()[0].rstrip(b",}") + b"}}")["forktui"] == document["forktui"]
    return document


def told(instance: Instance, source: str | None) -> dict[str, object]:
    return {"id": instance.id, "name": instance.name, "number": instance.number, "source": source}


async def test_each_clone_has_a_disk_that_tells_it_who_it_is_and_what_it_is_for(firecracker_home: Home) -> None:
    image = await asyncio.to_thread(write_told, firecracker_home)
    async with supervisor(firecracker_home) as running:
        client = running.client
        made = await client.create(CreateRequest(name="web", image="told", metadata=ROLE))
        await until_console_says(firecracker_home.data / "instances" / made.id / "console.log", "pass 1")
        assert await read(client, "web") == {"forktui": told(made, None), **ROLE}
        assert (await client.instance("web")).metadata == ROLE
        assert all(one.metadata is None for one in await client.instances()), "it may be large, and is asked for"
        await client.checkpoint("web", CheckpointRequest(name="then", metadata={"role": "then"}))
        await client.standby("web")
        plain = await client.fork("web", ForkRequest(name="plain", share_memory=True, target_state="Running"))
        assert await read(client, "plain") == {"forktui": told(plain, "web"), **ROLE}, "as its source's"
        result = await client.fan_out("web", FanOutRequest(count=3, metadata={"shard": "é"}))
        for child in result.children:
            assert child.instance is not None, child.error
            assert await read(client, child.name) == {"forktui": told(child.instance, "web"), "shard": "é"}
        bare = await client.fork("then", ForkRequest(name="bare", target_state="Running", metadata={}))
        assert await read(client, "bare") == {"forktui": told(bare, "then")}
        later = await client.fork("then", ForkRequest(name="later", target_state="Running", memory_backend="file"))
        assert await read(client, "later") == {"forktui": told(later, "then"), "role": "then"}
        await client.standby("plain")
        below = await client.fork("plain", ForkRequest(name="below", share_memory=True, target_state="Running"))
        assert await read(client, "below") == {"forktui": told(below, "plain"), **ROLE}
    assert await asyncio.to_thread((image / "metadata.img").read_bytes) == bytes(SIZE)
    async with supervisor(firecracker_home) as running:
        client = running.client
        await client.stop("bare")
        assert (await client.start("bare")).state is State.RUNNING
        assert await read(client, "bare") == {"forktui": told(bare, "then")}
        await client.standby("later")
        await client.restore("later")
        assert await read(client, "later") == {"forktui": told(later, "then"), "role": "then"}
        await client.delete("web", cascade=True)


async def test_each_clone_is_told_by_mmds_before_it_runs(firecracker_home: Home) -> None:
    with tap("ft-told0") as device:
        interface = {"iface_id": "eth0", "guest_mac": "06:00:AC:10:00:02", "host_dev_name": device}
        mmds = {"mmds-config": {"version": "V2", "network_interfaces": ["eth0"]}}
        machine = {"network-interfaces": [interface], "drives": [], **mmds}
        await asyncio.to_thread(lambda: write_told(firecracker_home, machine))
        async with supervisor(firecracker_home) as running:
            client = running.client

            async def data(instance: Instance) -> Any:
                socket = api_socket(firecracker_home, instance.id)
                status, found = await asyncio.to_thread(request, socket, "GET", "/mmds")
                assert status == 200
                return found

            made = await client.create(CreateRequest(name="web", image="told", metadata=ROLE))
            await until_console_says(firecracker_home.data / "instances" / made.id / "console.log", "pass 1")
            assert await data(made) == {"forktui": told(made, None), **ROLE}
            # The device is one VM's at a time, as long as each has no network of its own.
            await client.standby("web")
            assert await data(await client.restore("web")) == {"forktui": told(made, None), **ROLE}
            await client.standby("web")
            for number, (prefetch, backend) in enumerate(
                (("before_resume", "uffd"), ("before_resume", "uffd"), ("concurrent", "uffd"), ("off", "file"))
            ):
                options = {"prefetch": prefetch, "memory_backend": backend, "metadata": {"big": "é" * 20_000}}
                fork = await client.fork(
                    "web",
                    ForkRequest.model_validate(
                        {"name": f"f{number}", "share_memory": True, "target_state": "Running", **options}
                    ),
                )
                assert await data(fork) == {"forktui": told(fork, "web"), "big": "é" * 20_000}
                await until_console_says(firecracker_home.data / "instances" / fork.id / "console.log", "restored")
                await client.delete(fork.id)
            await client.delete("web")


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ({"sections": {}}, "web: metadata needs a way into the guest: name a read-only drive in vm.json"),
        ({"size": 512}, "web: metadata is refused: it takes "),
    ],
)
async def test_metadata_that_would_not_arrive_is_refused_and_nothing_is_made(
    firecracker_home: Home, image: dict[str, Any], message: str
) -> None:
    await asyncio.to_thread(lambda: write_told(firecracker_home, **image))
    async with supervisor(firecracker_home) as running:
        client = running.client
        with pytest.raises(ApiError, match=message):
            await client.create(CreateRequest(name="web", image="told", metadata={"a": "x" * 512}))
        assert await client.instances() == []
        assert list((firecracker_home.data / "instances").iterdir()) == []
        await client.create(CreateRequest(name="web", image="told"))
        with pytest.raises(ApiError, match=message):
            await client.checkpoint("web", CheckpointRequest(metadata={"a": "x" * 512}))
        await client.standby("web")
        with pytest.raises(ApiError, match=message):
            await client.fork("web", ForkRequest(share_memory=True, target_state="Running", metadata={"a": "x" * 512}))
        assert [one.name for one in await client.instances()] == ["web"]
        await client.delete("web")


async def test_the_embedded_vmm_has_no_way_and_says_so(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        with pytest.raises(ApiError, match="web: metadata needs a way into the guest"):
            await client.create(CreateRequest(name="web", image="pagewalker", metadata={"role": "web"}))
        assert await client.instances() == []


async def test_a_disk_that_is_half_written_when_the_supervisor_is_killed_is_swept(firecracker_home: Home) -> None:
    await asyncio.to_thread(lambda: write_told(firecracker_home))
    async with supervisor(firecracker_home) as running:
        made = await running.client.create(CreateRequest(name="web", image="told"))
        await running.client.stop("web")
    left = firecracker_home.data / "instances" / made.id / ".metadata.json.new"
    await asyncio.to_thread(left.write_bytes, b"{")
    async with supervisor(firecracker_home) as running:
        assert not await asyncio.to_thread(left.exists)
        await running.client.delete("web")


async def test_a_fork_that_is_made_where_the_supervisor_is_killed_is_told_or_not_there(firecracker_home: Home) -> None:
    """Its disk is written in a step of its own, which a new supervisor has done anew or undone."""
    home = firecracker_home
    await asyncio.to_thread(lambda: write_told(home))
    failpoint = home.root / "failpoint"
    await asyncio.to_thread(failpoint.touch)
    home.options, home.environment = ("--log-level", "debug"), {"FORKTUI_FAILPOINT": str(failpoint)}
    wanted = ForkRequest(name="fork", share_memory=True, target_state="Running", metadata=ROLE)
    async with supervisor(home) as running:
        await running.client.create(CreateRequest(name="web", image="told"))
        await running.client.standby("web")
        await running.client.fork("web", wanted)
        await running.client.delete("fork")
    # By another supervisor: the first fork also writes down what its template keeps.
    before = await asyncio.to_thread(running.log.read_text)
    async with supervisor(home) as running:
        await running.client.fork("web", wanted)
        await running.client.delete("fork")
        log = (await asyncio.to_thread(running.log.read_text))[len(before) :]
        steps = re.findall(r"supervisor\.concurrency\.progress: fork: (.*)", log)
    first = steps.index("metadata") + 1
    for number in (first, first + 1):
        async with supervisor(home) as running:
            await asyncio.to_thread(failpoint.write_text, f"fork:{number}")
            with pytest.raises((ApiError, SupervisorUnreachableError)):
                await running.client.fork("web", wanted)
            await asyncio.to_thread(failpoint.write_text, "")
            await running.process.wait()
        async with supervisor(home) as running:
            if "fork" in [one.name for one in await running.client.instances()]:
                assert (await read(running.client, "fork"))["role"] == "web"
                await running.client.delete("fork")
            fork = await running.client.fork("web", wanted)
            assert await read(running.client, "fork") == {"forktui": told(fork, "web"), **ROLE}
            await running.client.delete("fork")
    async with supervisor(home) as running:
        await running.client.delete("web")


async def test_a_disk_that_is_named_so_and_not_meant_is_left_alone(firecracker_home: Home) -> None:
    more = {"forktui": {"readiness": "console:pass 1"}}
    await asyncio.to_thread(lambda: write_told(firecracker_home, more))
    async with supervisor(firecracker_home) as running:
        made = await running.client.create(CreateRequest(name="web", image="told"))
        assert await asyncio.to_thread(opened, made) == bytes(SIZE)
        await running.client.delete("web")


async def test_a_disk_that_would_take_long_to_write_at_each_start_is_refused(firecracker_home: Home) -> None:
    await asyncio.to_thread(lambda: write_told(firecracker_home, size=LARGEST_DISK + 512))
    async with supervisor(firecracker_home) as running:
        with pytest.raises(ApiError, match=f"web: its disk metadata for metadata has {LARGEST_DISK + 512} bytes"):
            await running.client.create(CreateRequest(name="web", image="told"))
        assert await running.client.instances() == []


async def test_what_is_named_for_metadata_has_to_be_a_disk_that_the_guest_only_reads(firecracker_home: Home) -> None:
    await asyncio.to_thread(lambda: write_told(firecracker_home, read_only=False))
    async with supervisor(firecracker_home) as running:
        with pytest.raises(ApiError, match="metadata_drive: metadata has to be a drive with a path, and is_read_only"):
            await running.client.create(CreateRequest(name="web", image="told"))
