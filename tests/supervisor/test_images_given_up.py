"""Builds that are ended while a thread of theirs hangs, or that meet something else: no other build has any of it."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from supervisor.errors import InvalidImageError, NameConflictError, OperationCancelledError, StorageError
from supervisor.host.host import Host
from supervisor.images import threads
from supervisor.models import BuildImageRequest
from supervisor.operations import images
from supervisor.operations.images import DIRECTORY, Part
from tests.harness.kernels import vmlinux
from tests.harness.opened_host import opened_host
from tests.harness.supervisor_process import Home
from tests.harness.waiting import until
from tests.supervisor.test_built_files import tar_of

PARTS = {"kernel": vmlinux(), "rootfs": tar_of(["a"], b"x")}
REQUEST = BuildImageRequest(name="web", memory="64MB", scratch="64MB")


class SlowDisk:
    """One whose next fsync of a scratch disk takes until it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reached = threading.Event()
        self.goes_on = threading.Event()
        self._fsync = os.fsync
        monkeypatch.setattr(os, "fsync", self._wait)

    def _wait(self, fd: int) -> None:
        if Path(f"/proc/self/fd/{fd}").readlink().name == "scratch.ext4" and not self.reached.is_set():
            self.reached.set()
            self.goes_on.wait(30)
        self._fsync(fd)


async def given(parts: dict[str, bytes]) -> AsyncIterator[Part]:
    async def pieces(data: bytes) -> AsyncIterator[bytes]:
        yield data

    for name, data in parts.items():
        yield Part(name, pieces(data))


def left(home: Home) -> list[str]:
    return sorted(path.name for path in (home.data / "images").iterdir())


async def ended(host: Host, building: "asyncio.Task[object]", disk: SlowDisk) -> BaseException | None:
    """Cancel a build that hangs, and return what comes of it."""
    await asyncio.to_thread(disk.reached.wait)
    (operation,) = host.operations()
    await host.cancel(operation.id)
    await asyncio.wait((building,))
    return building.exception()


async def test_the_thread_of_a_cancelled_build_writes_into_no_other(
    embedded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "CANCELLED_SECONDS", 0.01)
    disk = SlowDisk(monkeypatch)
    async with opened_host(embedded) as host:
        building: asyncio.Task[object] = asyncio.create_task(host.build_image(REQUEST, given(PARTS), None))
        assert isinstance(await ended(host, building, disk), OperationCancelledError)

        async def parts() -> AsyncIterator[Part]:
            # Its directory is there by now.
            disk.goes_on.set()
            await until(lambda: all(thread.name != "side" for thread in threading.enumerate()))
            async for part in given(PARTS):
                yield part

        await host.build_image(REQUEST, parts(), None)
        await until(lambda: left(embedded) == ["web"])


async def test_a_build_whose_disk_does_not_answer_is_given_up_and_leaves_nothing(
    embedded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "PLACE_SECONDS", 0.2)
    monkeypatch.setattr(threads, "CANCELLED_SECONDS", 0.01)
    disk = SlowDisk(monkeypatch)
    async with opened_host(embedded) as host:
        with pytest.raises(StorageError, match="image web: it cannot be made: no answer after 0 s"):
            await host.build_image(REQUEST, given(PARTS), None)
        disk.goes_on.set()
        await until(lambda: left(embedded) == [])


def test_what_a_thread_makes_while_its_directory_is_removed_goes_with_it(tmp_path: Path) -> None:
    staging = images._Staging(tmp_path / "web", "image build")
    staging.make()

    def late() -> None:
        staging.discard()
        staging.made.mkdir(parents=True)
        (staging.made / "initrd").write_bytes(b"late")

    staging.filled(late)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["directory", "file"])
async def test_an_image_of_that_name_that_comes_meanwhile_is_a_conflict(embedded: Home, kind: str) -> None:
    async with opened_host(embedded) as host:
        there = embedded.data / "images" / "web"

        async def parts() -> AsyncIterator[Part]:
            async for part in given(PARTS):
                yield part
            if kind == "file":
                there.write_bytes(b"")
            else:
                there.mkdir()
                (there / "own").touch()

        with pytest.raises(NameConflictError, match="image web: image build refused: there is one"):
            await host.build_image(REQUEST, parts(), None)
        assert left(embedded) == ["web"]


async def test_a_name_that_is_too_long_is_told_as_one(embedded: Home) -> None:
    async with opened_host(embedded) as host:
        with pytest.raises(InvalidImageError, match="File name too long"):
            await host.add_image("web", given({DIRECTORY: tar_of(["n" * 256], b"x")}), None)
        assert left(embedded) == []
