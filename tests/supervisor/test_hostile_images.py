"""What others put into images/: each bad entry is told, and harms itself alone."""

import asyncio
import contextlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.concurrency import side_threads
from supervisor.errors import InvalidImageError
from supervisor.guests.boot import kernel_path
from supervisor.images import boot_image, catalog, snapshot_image
from supervisor.images import threads as image_threads
from supervisor.images.threads import ImageThreads
from supervisor.models import CreateRequest
from supervisor.system import watching
from tests.harness.hanging_mount import hanging
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.waiting import until_log_says

BOOT = {"boot-source": {"kernel_image_path": "vmlinux"}, "machine-config": {"vcpu_count": 1, "mem_size_mib": 64}}
DRIVE = {"drive_id": "root", "is_root_device": True, "path_on_host": "root.img"}
NAME_REFUSED = (
    "image '{broken}' is refused: a name has up to 63 letters, digits, dots, dashes and underscores, no blanks, "
    "a letter or digit first: choose another name"
)
ANSWER = 20.0
"""Seconds: of GET /images while something hangs in it."""


def write_image(images: Path, name: str, config: object = BOOT) -> Path:
    directory = images / name
    directory.mkdir(parents=True)
    shutil.copy(kernel_path(), directory / "vmlinux")
    (directory / "root.img").write_bytes(b"disk" * 1024)
    (directory / "vm.json").write_text(json.dumps(config))
    return directory


def replaced(name: str, make: Callable[[Path], object]) -> Callable[[Path], None]:
    """Return what puts something else in the place of an image's file."""

    def replace(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        make(directory / name)

    return replace


def secret(path: Path) -> None:
    """Put a file beside the images, and a link to it at a path."""
    (path.parent.parent / ".secret").write_text(json.dumps(BOOT))
    path.symlink_to("../.secret")


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


def folder_out(directory: Path) -> None:
    """Have a directory on a drive's path be a link out of the image."""
    (directory.parent / ".elsewhere").mkdir()
    (directory.parent / ".elsewhere" / "root.img").write_text("secret")
    (directory / "disks").symlink_to("../.elsewhere")
    config = {**BOOT, "drives": [{**DRIVE, "path_on_host": "disks/root.img"}]}
    (directory / "vm.json").write_text(json.dumps(config))


def old(directory: Path) -> None:
    os.utime(directory, (1 << 40, 1 << 40))
    (directory / "vm.json").write_text("{")
    os.utime(directory, (1 << 40, 1 << 40))


def cpu_config(directory: Path) -> None:
    (directory / "vm.json").write_text(json.dumps({**BOOT, "cpu-config": "cpu.json"}))
    os.mkfifo(directory / "cpu.json")


BAD: dict[str, tuple[Callable[[Path], None], str]] = {
    "fifo": (replaced("vm.json", os.mkfifo), "vm.json: it is a FIFO, and no file"),
    "folder": (replaced("vm.json", Path.mkdir), "vm.json: it is a directory, and no file"),
    "socket": (replaced("vm.json", lambda path: os.mknod(path, 0o140600)), "vm.json: it is a socket, and no file"),
    "device": (replaced("vm.json", lambda path: path.symlink_to("/dev/zero")), "vm.json: it is a link out of its"),
    "link-out": (replaced("vm.json", secret), "vm.json: it is a link out of its directory"),
    "loop": (replaced("vm.json", lambda path: path.symlink_to("vm.json")), "vm.json: it is a symbolic link, and no"),
    "huge": (replaced("vm.json", huge), "vm.json: it has more than 1048576 bytes"),
    "not-json": (replaced("vm.json", lambda path: path.write_bytes(b"\xff\x00")), "vm.json: it is not JSON"),
    "deep-json": (replaced("vm.json", lambda path: path.write_text("[" * 500_000)), "vm.json: it is not JSON"),
    "kernel-fifo": (replaced("vmlinux", os.mkfifo), "vmlinux is no file in the image's directory (it is a FIFO"),
    "kernel-link": (replaced("vmlinux", secret), "vmlinux is a link to "),
    "folder-out": (folder_out, "disks/root.img is a link to "),
    "cpu-fifo": (cpu_config, "cpu.json is no file in the image's directory (it is a FIFO"),
    "memory": (replaced("vm.json", lambda path: path.write_text(json.dumps(
        {**BOOT, "machine-config": {"mem_size_mib": 10**300}}))), "machine-config.mem_size_mib"),
    "time": (old, "vm.json: it is not JSON"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_an_image_with_something_else_in_a_files_place_is_refused(tmp_path: Path, what: str) -> None:
    spoil, reason = BAD[what]
    spoil(write_image(tmp_path, what))
    with pytest.raises(InvalidImageError) as told:
        boot_image.load_image(tmp_path, what)
    assert reason in told.value.message
    assert "\n" not in told.value.message


@pytest.mark.parametrize("name", ["state", "mem", "hot_pages"])
@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, secret], ids=["fifo", "folder", "link-out"])
def test_a_snapshot_with_something_else_in_a_files_place_is_refused(
    tmp_path: Path, name: str, make: Callable[[Path], object]
) -> None:
    directory = write_image(tmp_path, "snap")
    (directory / "state").write_bytes(b"x")
    (directory / "mem").write_bytes(b"x")
    replaced(name, make)(directory)
    with pytest.raises(InvalidImageError, match=f"image snap: .*{name}"):
        snapshot_image.load_snapshot(directory)


def test_a_link_to_an_image_is_one_as_long_as_it_stays_among_them(tmp_path: Path) -> None:
    write_image(tmp_path / "images", "alpine-3")
    (tmp_path / "images" / "alpine").symlink_to("alpine-3")
    assert boot_image.load_image(tmp_path / "images", "alpine").name == "alpine"
    write_image(tmp_path, "elsewhere")
    (tmp_path / "images" / "out").symlink_to(tmp_path / "elsewhere")
    for load in (
        lambda: boot_image.load_image(tmp_path / "images", "out"),
        lambda: snapshot_image.load_snapshot(tmp_path / "images" / "out"),
    ):
        with pytest.raises(InvalidImageError, match=r"image out: .* is a link to .*/elsewhere: put the"):
            load()
    (tmp_path / "linked").symlink_to("images")
    assert boot_image.load_image(tmp_path / "linked", "alpine-3").name == "alpine-3"


NAMES = (b"not-utf-8-\xff", b"line\nfeed", b"\x1b[31mred", b"x" * 255, b"blank name", "\u202eleft".encode())


def spoilt(images: Path) -> int:
    """Put every bad entry into images/, and return how many."""
    for name, (spoil, _) in BAD.items():
        spoil(write_image(images, name))
    for raw in NAMES:
        os.mkdir(os.fsencode(images) + b"/" + raw)  # noqa: PTH102 - no name of a Path
    (images / "dangling").symlink_to("gone")
    (images / "a-file").write_text("no image")
    (images / "to-a-file").symlink_to("a-file")
    os.mkfifo(images / "a-fifo")
    return len(BAD) + len(NAMES)


async def test_each_bad_entry_harms_itself_alone(embedded: Home) -> None:
    images = embedded.data / "images"
    images.mkdir(parents=True)
    bad = spoilt(images)
    async with supervisor(embedded) as running:
        listed = await running.client.images()
        failed = [one for one in listed if one.error is not None]
        assert len(failed) == bad
        assert [one.name for one in listed if one.error is None] == ["pagewalker"]
        for one in failed:
            assert f"{one.name}{one.error}".isprintable()
        for name in BAD:
            error = await refused(running.client.create(CreateRequest(name="x", image=name, hypervisor="embedded")))
            assert (error.status, error.code) == (400, "invalid_image"), error.message
        write_image(images, "good")
        await until_log_says(running.log, "good: an image to make instances from")
        await running.client.create(CreateRequest(name="vm", image="pagewalker"))
        error = await refused(running.client.create(CreateRequest(name="x", image="nosuch")))
        assert error.message.endswith(", or take one of these: pagewalker, good")


@contextlib.contextmanager
def several_hang(images: Path, count: int) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for number in range(count):
            (images / f"hangs-{number}").mkdir()
            stack.enter_context(hanging(images / f"hangs-{number}"))
        yield


async def test_a_mount_that_does_not_answer_harms_itself_alone(embedded: Home) -> None:
    images = embedded.data / "images"
    write_image(images, "good")
    with several_hang(images, 3):
        async with supervisor(embedded) as running:
            async with asyncio.timeout(ANSWER):
                listed = {one.name: one.error for one in await running.client.images()}
            assert listed["good"] is None
            assert all("its files cannot be read: no answer" in (listed[f"hangs-{n}"] or "") for n in range(3))
            # Each look would take a thread, of which the event loop has six.
            for _ in range(20):
                assert len(await running.client.images()) == 5
                error = await refused(running.client.create(CreateRequest(name="x", image="hangs-0")))
                assert (error.status, error.code) == (400, "invalid_image")
                assert "no answer after 5 s" in error.message
            await running.client.create(CreateRequest(name="vm", image="pagewalker"))
            await running.client.delete("vm")
            began = time.monotonic()
            assert await running.end() == 0
            assert time.monotonic() - began < 4, "nothing that hangs is waited for"


async def test_the_places_of_those_that_hang_are_given_to_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_image(tmp_path, "zzz-good")
    for seconds in ("READ_SECONDS", "PLACE_SECONDS"):
        monkeypatch.setattr(image_threads, seconds, 0.2)
    threads, go_on = ImageThreads(), threading.Event()
    with several_hang(tmp_path, 2 * image_threads.READERS):
        made = catalog.ImageCatalog(tmp_path, {}, lambda *told, **_: None, threads)
        assert [one.name for one in await made.images() if one.error is None] == ["pagewalker", "zzz-good"]
    try:
        hung = [
            asyncio.create_task(threads.place("hangs", lambda: _wait(go_on))) for _ in range(2 * image_threads.PLACERS)
        ]
        for name in ("pagewalker", "good"):
            await threads.place(name, lambda: None)
        for result in await asyncio.gather(*hung, return_exceptions=True):
            assert "image hangs: its files cannot be copied: no answer after 0 s" in str(result)
        await threads.place("good", lambda: None)
    finally:
        go_on.set()


def _wait(event: threading.Event) -> None:
    event.wait(ANSWER)


async def test_when_too_much_hangs_that_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path, "zzz-good")
    monkeypatch.setattr(side_threads, "MOST_GIVEN_UP", 3)
    monkeypatch.setattr(image_threads, "READ_SECONDS", 0.2)
    threads = ImageThreads()
    with several_hang(tmp_path, 4):
        made = catalog.ImageCatalog(tmp_path, {}, lambda *told, **_: None, threads)
        await made.images()
        words = "threads for reading images have been given up and have not returned, the first of them for image hangs"
        with pytest.raises(InvalidImageError, match=words):
            await threads.read_image("zzz-good", lambda: None)
        assert [one.name for one in await made.images() if one.error is None] == ["pagewalker"], "it is ours"
    looks = 0
    while (await made.images())[-1].error is not None:
        looks += 1
        assert looks < 1000, "what hung has returned, and its threads are free again"


async def test_thousands_of_directories_are_bounded_and_told(embedded: Home) -> None:
    images = embedded.data / "images"
    write_image(images, "zzz-good")
    for number in range(20_000):
        (images / f"junk {number}").mkdir()
    async with supervisor(embedded) as running:
        async with asyncio.timeout(ANSWER):
            listed = await running.client.images()
        assert len(listed) == 1001
        assert [one.name for one in listed if one.error is None] == ["pagewalker", "zzz-good"]
        await until_log_says(running.log, "it has 20001 directories, and 1000 are looked at")


def moved(images: Path) -> None:
    images.rename(images.with_name("aside"))


def put_back(images: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        images.unlink()
    images.with_name("aside").rename(images)


GONE: dict[str, Callable[[Path], Any]] = {
    "removed": lambda images: None,
    "a file": lambda images: images.write_text("no directory"),
    "a FIFO": os.mkfifo,
    "a link to nothing": lambda images: images.symlink_to("gone"),
}


async def test_the_directory_of_images_may_go_and_come_back(embedded: Home) -> None:
    images = embedded.data / "images"
    write_image(images, "good")
    async with supervisor(embedded) as running:
        for number, make in enumerate(GONE.values()):
            moved(images)
            make(images)
            assert [one.name for one in await running.client.images()] == ["pagewalker"]
            error = await refused(running.client.create(CreateRequest(name="x", image="good")))
            assert (error.status, error.code) == (400, "invalid_image")
            put_back(images)
            assert [one.name for one in await running.client.images()][:2] == ["pagewalker", "good"]
            await asyncio.to_thread(write_image, images, f"new-{number}")
            await until_log_says(running.log, f"new-{number}: an image to make instances from")


async def test_a_directory_that_hangs_is_told_once_and_the_others_are_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images, lines, reported, looks = tmp_path / "images", list[str](), asyncio.Event(), 0
    write_image(images, "good")
    monkeypatch.setattr(image_threads, "READ_SECONDS", 0.2)
    monkeypatch.setattr(catalog, "LOOK_SECONDS", 10 * ANSWER)
    listed = catalog._listed

    def counting(directory: Path) -> catalog.Entries:
        nonlocal looks
        looks += 1
        return listed(directory)

    def report(level: str, line: str, instance_id: str | None, **_: object) -> None:
        lines.append(line)
        reported.set()

    monkeypatch.setattr(catalog, "_listed", counting)
    # Where it leads is looked for by inotify_add_watch(2) already.
    (images / "a-link").symlink_to("hangs-0/below")
    with several_hang(images, 1):
        made = catalog.ImageCatalog(images, {}, report, ImageThreads())
        watch = asyncio.create_task(made.watch())
        reason = "its files cannot be read: no answer after 0 s"
        told = [f"{name}: the image cannot be used: image {name}: {reason}" for name in ("a-link", "hangs-0")]
        for line in told:
            await until(lines, line, reported)
        for _ in range(2):
            (images / "good" / "vm.json").rename(images / "good" / "aside")
            await until(
                lines,
                f"good: the image cannot be used: image good: {images}/good has no vm.json, nor a state "
                "and a mem: put them there",
                reported,
            )
            (images / "good" / "aside").rename(images / "good" / "vm.json")
            await until(lines, "good: an image to make instances from", reported)
            lines = [line for line in lines if line in told]
        made.stop()
        await watch
    assert looks > 4
    assert sorted(lines) == told
    assert not caplog.records


async def until(lines: list[str], line: str, again: asyncio.Event) -> None:
    async with asyncio.timeout(ANSWER):
        while line not in lines:
            again.clear()
            await again.wait()


@pytest.mark.parametrize("fault", ["no inotify", "no watches", "a look that fails"])
async def test_a_watch_that_cannot_be_had_falls_back_to_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    images, lines, reported = tmp_path / "images", list[str](), asyncio.Event()
    write_image(images, "first")
    monkeypatch.setattr(catalog, "LOOK_SECONDS", 0.05)

    def report(level: str, line: str, instance_id: str | None, **_: object) -> None:
        lines.append(line)
        reported.set()

    def refuse(*arguments: object) -> int:
        raise OSError(24, "Too many open files")

    if fault != "a look that fails":
        monkeypatch.setattr(watching, "inotify" if fault == "no inotify" else "add_watch", refuse)
    made = catalog.ImageCatalog(images, {}, report, ImageThreads())
    listed, failures = catalog._listed, list[int]()

    def failing(directory: Path) -> catalog.Entries:
        if fault == "a look that fails" and len(failures) < 3:
            failures.append(1)
            raise RuntimeError("a fault of ours")
        return listed(directory)

    monkeypatch.setattr(catalog, "_listed", failing)
    watch = asyncio.create_task(made.watch())
    write_image(images, "{broken}")
    await until(lines, f"{{broken}}: the image cannot be used: {NAME_REFUSED}", reported)
    (images / "{broken}").rename(images / "fine")
    await until(lines, "fine: an image to make instances from", reported)
    made.stop()
    await watch
    assert len(failures) == (3 if fault == "a look that fails" else 0)
