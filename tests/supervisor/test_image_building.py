"""Images that are built, added and removed over the socket: each whole or not there, whoever sends what."""

import asyncio
import io
import json
import os
import re
import signal
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.client.uploads import SentFile, tar_of_bytes, tar_of_image, tar_of_root
from supervisor.models import BuildImageRequest, CreateRequest, FanOutRequest, State
from supervisor.operations import images as images_module
from tests.harness.kernels import bzimage, vmlinux
from tests.harness.refusals import refused
from tests.harness.small_disk import small_disk
from tests.harness.supervisor_process import Home, gathered, supervisor
from tests.harness.waiting import until_console_says

MIB = 1 << 20


def sent(data: bytes) -> SentFile:
    return SentFile(len(data), lambda: iter([data]))


def root_tar(*names: str) -> SentFile:
    return tar_of_bytes((name, name.encode() * 1000) for name in names or ("etc/hostname", "sbin/init"))


def walking(name: str, **more: Any) -> BuildImageRequest:
    """Return a request for an image whose kernel is pagewalker, which takes no notice of Linux's words."""
    return BuildImageRequest(name=name, boot_args="passes=0 hot_mib=4", memory="64MB", **more)


def left(home: Home) -> list[str]:
    """Return what is in the images' directory."""
    return sorted(path.name for path in (home.data / "images").iterdir())


async def test_forks_of_a_built_image_share_its_root_and_have_copies_of_what_they_write(firecracker_home: Home) -> None:
    home = firecracker_home
    files = {"kernel": sent(bzimage(vmlinux(), size_behind=False)), "rootfs": root_tar()}
    async with supervisor(home) as running:
        client = running.client
        made = await client.build_image(walking("scratched", scratch="64MB"), files)
        assert made.kernel == "a bzImage (nothing)"
        assert {one.word for one in made.boot_words} >= {"reboot=k", "panic=1", "no-kvmapf", "random.trust_cpu=on"}
        assert all(one.why for one in made.boot_words)
        assert {one.option: one.status for one in made.findings}["VIRTIO_BLK"] == "not found"
        await client.build_image(walking("writable", writable=True), files)
        directory = home.data / "images" / "scratched"
        assert {path.name for path in directory.iterdir()} == {
            *("vmlinux", "initrd", "root.ext4", "scratch.ext4", "metadata.img", "vm.json")
        }
        assert {path.stat().st_mode & 0o077 for path in directory.iterdir()} == {0}
        assert (directory / "vmlinux").read_bytes() == vmlinux()
        roots = await forked_disks(client, home, "scratched", "root")
        assert len({status.st_ino for status in roots}) == 1, "all share one"
        scratches = await forked_disks(client, home, "scratched", "scratch", again=True)
        assert len({status.st_ino for status in scratches}) == len(scratches)
        assert all(status.st_blocks * 512 < MIB for status in scratches)
        told = {one.name: (home.data / "instances" / one.id / "disk.metadata") for one in await client.instances()}
        assert len(told) == 4
        for name, disk in told.items():
            assert json.loads(disk.read_bytes())["forktui"]["name"] == name
        own = await forked_disks(client, home, "writable", "root")
        assert len({status.st_ino for status in own}) == len(own)


async def forked_disks(
    client: SupervisorClient, home: Home, image: str, disk: str, *, again: bool = False
) -> list[os.stat_result]:
    """Return the status of a disk of an instance of an image and of three forks of that, which run."""
    if not again:
        source = await client.create(CreateRequest(name=image, image=image))
        await until_console_says(home.data / "instances" / source.id / "console.log", "pass 1")
        await client.standby(image)
        await client.fan_out(image, FanOutRequest(count=3))
    family = [one for one in await client.instances() if one.name.startswith(image)]
    assert len(family) == 4
    return [(home.data / "instances" / one.id / f"disk.{disk}").stat() for one in family]


REFUSED: list[tuple[BuildImageRequest, dict[str, bytes], str, str]] = [
    (walking("x"), {}, "bad_request", "part kernel is missing"),
    (walking("x"), {"kernel": b"ELF"}, "invalid_image", "image x: kernel: it is neither a vmlinux"),
    (walking("x"), {"kernel": vmlinux(), "rootfs": b"tar" * 999}, "invalid_image", "image x: rootfs: it is no tar"),
    (walking("x"), {"kernel": vmlinux(), "initrd": b"", "other": b""}, "bad_request", "the part 'other'"),
    (walking("x", scratch="9MB"), {"kernel": vmlinux()}, "bad_request", "scratch and init are a root's"),
    (walking("x", size="1T"), {"kernel": vmlinux(), "config": b"no"}, "bad_request", "are a root's"),
    (
        walking("x"),
        {"kernel": vmlinux(), "config": b"no configuration"},
        "invalid_image",
        "config: it is no kernel",
    ),
    (walking("pagewalker"), {"kernel": vmlinux()}, "bad_request", "pagewalker is taken"),
    (BuildImageRequest(name="x", memory="1TB"), {"kernel": vmlinux()}, "invalid_size", "size 1TB is refused"),
    (walking("x", writable=True, size="1"), {"kernel": vmlinux(), "rootfs": b""}, "invalid_size", "disk size '1'"),
    (
        walking("x", init="/a", size="9MB"),
        {"kernel": vmlinux(), "rootfs": b"", "initrd": b""},
        "bad_request",
        "init",
    ),
]


async def test_what_cannot_be_an_image_is_refused_and_nothing_of_it_stays(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        for request, files, code, why in REFUSED:
            building = running.client.build_image(request, {name: sent(data) for name, data in files.items()})
            error = await refused(building)
            assert (error.code, why in error.message) == (code, True), error.message
            assert left(embedded) == []
        assert await running.client.operations() == []


async def test_an_image_is_not_built_over_another_nor_removed_under_its_instances(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        build = partial(client.build_image, walking("web"), {"kernel": sent(vmlinux())})
        await build()
        assert (await refused(build())).code == "name_conflict"
        assert {one.name: one.error for one in await client.images()}["web"] is None
        source = tar_of_image(embedded.data / "images" / "web")
        await client.add_image("copy", source)
        assert left(embedded) == ["copy", "web"]
        await client.remove_image("web")
        assert left(embedded) == ["copy"]
        assert (await refused(client.remove_image("web"))).code == "not_found"
        assert (await refused(client.remove_image("pagewalker"))).code == "invalid_state"
        assert (await refused(client.remove_image("../instances"))).code == "not_found"


async def test_a_snapshot_is_added_and_not_removed_while_there_are_instances_of_it(home: Home, tmp_path: Path) -> None:
    async with supervisor(home) as running:
        client = running.client
        await client.create(CreateRequest(name="first", image="pagewalker", size="64MB", cmd=("hot_mib=4",)))
        await client.wait("first", State.RUNNING, 30)
        first = await client.standby("first")
        record = json.loads((home.data / "instances" / first.id / "instance.json").read_text())["snapshot"]
        for name, file in (("state", record["state"]), ("mem", record["layers"][0])):
            (tmp_path / name).symlink_to(home.data / "instances" / first.id / file)
        await client.add_image("snap", tar_of_image(tmp_path))
        added = home.data / "images" / "snap"
        assert (added / "mem").read_bytes() == (tmp_path / "mem").read_bytes()
        assert (added / "mem").stat().st_blocks * 512 < 32 * MIB, "of zeros holes are made"
        made = await client.create(CreateRequest(name="second", image="snap", hypervisor=first.hypervisor))
        assert made.state is State.STANDBY
        assert (await client.restore("second")).state is State.RUNNING
        error = await refused(client.remove_image("snap"))
        assert (error.code, "made of it (second); delete it first" in error.message) == ("invalid_state", True)
        await client.delete("second")
        await client.remove_image("snap")
        await client.delete("first")


def hostile(name: str, kind: bytes = tarfile.REGTYPE, **fields: object) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    for field, value in fields.items():
        setattr(entry, field, value)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        archive.addfile(entry)
    return out.getvalue()


NO_IMAGES: list[tuple[bytes, str]] = [
    (hostile("../evil"), "leads out of the image's directory"),
    (hostile("/etc/evil"), "leads out of the image's directory"),
    (hostile("vm.json", tarfile.SYMTYPE, linkname="/etc/shadow"), "is no file and no directory"),
    (hostile("vm.json", tarfile.LNKTYPE, linkname="/etc/shadow"), "is no file and no directory"),
    (hostile("sda", tarfile.BLKTYPE), "is no file and no directory"),
    (hostile("readme"), "has no vm.json"),
    (hostile("vm.json"), "vm.json"),
    (b"", "it is no tar"),
]


async def test_a_directory_that_is_no_image_is_refused_and_nothing_of_it_stays(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        for tar, why in NO_IMAGES:
            error = await refused(running.client.add_image("evil", sent(tar)))
            assert (error.status, why in error.message) == (400, True), error.message
            assert left(embedded) == []


async def test_a_build_shows_how_far_it_is_and_is_cancelled(embedded: Home) -> None:
    more = threading.Event()
    async with supervisor(embedded) as running:
        client = running.client
        files = {"kernel": SentFile(100 * MIB, partial(held_back, more))}
        building = asyncio.create_task(client.build_image(walking("slow"), files))
        try:
            shown = await until_received(client, MIB)
            assert (shown.verb, shown.step, shown.unit) == ("image build", "receive", "bytes")
            assert shown.total == 100 * MIB
            (staging,) = left(embedded)
            assert staging.startswith(".new-slow-")
            assert (await refused(client.build_image(walking("slow"), files))).code == "name_conflict"
            ended = await client.cancel(shown.id)
            assert ended.outcome == "cancelled"
        finally:
            more.set()
            (error,) = await gathered(building)
        assert isinstance(error, ApiError) and error.code == "cancelled"
        assert left(embedded) == []


def held_back(more: threading.Event) -> Iterator[bytes]:
    """Yield the beginning of a file, and no more before that may come."""
    yield bytes(4 * MIB)
    more.wait(30)


async def until_received(client: SupervisorClient, amount: int) -> Any:
    while True:
        for one in await client.operations():
            if one.done >= amount:
                return one


async def test_a_client_that_goes_while_it_sends_leaves_nothing(embedded: Home) -> None:
    more = threading.Event()
    async with supervisor(embedded) as running:
        async with SupervisorClient(embedded.socket) as leaving:
            building = asyncio.create_task(
                leaving.build_image(walking("gone"), {"kernel": SentFile(MIB, partial(held_back, more))})
            )
            await until_received(running.client, MIB)
            building.cancel()
            more.set()
            await gathered(building)
        while await running.client.operations():
            await running.client.health()
        assert left(embedded) == []


async def test_a_full_disk_refuses_a_build_and_the_next_one_is_done(embedded: Home) -> None:
    with small_disk(embedded.data, 80) as disk:
        async with supervisor(embedded) as running:
            client = running.client
            files = {"kernel": sent(vmlinux()), "rootfs": tar_of_bytes([("big", os.urandom(20 * MIB))])}
            error = await refused(client.build_image(walking("big"), files))
            assert error.code in ("insufficient_resources", "invalid_image", "storage_failed"), error.code
            assert left(embedded) == []
            await client.build_image(walking("small"), {"kernel": sent(vmlinux())})
            assert left(embedded) == ["small"]
        assert disk.free()
        embedded.kill_everything()


async def test_what_a_supervisor_that_was_killed_left_of_a_build_is_swept(embedded: Home) -> None:
    half = embedded.data / "images" / ".new-half" / "half"
    half.mkdir(parents=True)
    (half / "vmlinux").write_bytes(vmlinux())
    embedded.data.chmod(0o700)
    async with supervisor(embedded):
        assert left(embedded) == []


@pytest.mark.slow
async def test_a_supervisor_that_is_killed_at_any_step_leaves_an_image_or_none(embedded: Home) -> None:
    failpoint = embedded.root / "failpoint"
    embedded.environment = {"FORKTUI_FAILPOINT": str(failpoint)}
    embedded.options = ("--log-level", "debug")
    files = {"kernel": sent(vmlinux()), "rootfs": root_tar()}
    for verb in ("image build", "image rm"):
        failpoint.write_text("")
        async with supervisor(embedded) as running:
            before = len(running.log.read_text())
            await done(running.client, verb, files)
            steps = re.findall(rf"progress: {verb}: (.*)", running.log.read_text()[before:])
        assert steps[-1] == "end" and len(steps) >= 2
        for number, step in enumerate(steps, 1):
            async with supervisor(embedded) as running:
                await undone(running.client, verb, files)
                failpoint.write_text(f"{verb}:{number}")
                with pytest.raises((SupervisorUnreachableError, ApiError)):
                    await done(running.client, verb, files)
                assert await running.process.wait() == -signal.SIGKILL, step
            failpoint.write_text("")
            async with supervisor(embedded) as running:
                assert left(embedded) in ([], ["web"]), step
                assert {one.error for one in await running.client.images()} == {None}, step
                await undone(running.client, verb, files)
                await done(running.client, verb, files)


async def done(client: SupervisorClient, verb: str, files: dict[str, SentFile]) -> None:
    if verb == "image rm":
        await client.remove_image("web")
    else:
        await client.build_image(walking("web"), files)


async def undone(client: SupervisorClient, verb: str, files: dict[str, SentFile]) -> None:
    there = "web" in {one.name for one in await client.images()}
    if there and verb == "image build":
        await client.remove_image("web")
    if not there and verb == "image rm":
        await client.build_image(walking("web"), files)


async def test_any_http_client_builds_an_image(embedded: Home) -> None:
    async with supervisor(embedded):
        transport = httpx.AsyncHTTPTransport(uds=str(embedded.socket))
        async with httpx.AsyncClient(transport=transport, base_url="http://forktui") as client:
            parts: dict[str, Any] = {"request": (None, '{"name": "plain"}', "application/json"), "kernel": vmlinux()}
            answer = await client.post("/images", files=parts)
            assert (answer.status_code, answer.json()["name"]) == (201, "plain")
            answer = await client.post("/images", json={"name": "docker.io/library/nginx"})
            assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_media_type")
            wrongs: list[dict[str, bytes]] = [
                {"kernel": vmlinux()},
                {"request": b"{"},
                {"request": b'{"name": "x", "nmae": "y"}'},
                {"request": b'{"name": "x", "name": "y"}'},
            ]
            for wrong in wrongs:
                answer = await client.post("/images", files=wrong)
                assert (answer.status_code, answer.json()["code"]) == (400, "bad_request"), answer.text


def test_a_root_is_sent_as_it_is_and_what_is_this_users_own_is_roots(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "passwd").write_text("root")
    (root / "etc" / "same").hardlink_to(root / "etc" / "passwd")
    (root / "bin").symlink_to("usr/bin")
    os.mkfifo(root / "fifo", 0o600)
    with tarfile.open(fileobj=io.BytesIO(b"".join(tar_of_root(root).pieces()))) as archive:
        entries = {entry.name: entry for entry in archive}
    assert entries["etc/same"].islnk() or entries["etc/passwd"].islnk()
    assert (entries["bin"].linkname, entries["fifo"].isfifo()) == ("usr/bin", True)
    assert {entry.uid for entry in entries.values()} == {0}


def test_the_bounds_of_what_is_sent_are_those_of_the_parts() -> None:
    assert {*images_module.MOST_BYTES} <= {"kernel", "config", "initrd", "modules"}
