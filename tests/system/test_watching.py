"""Being told of changes in directories, whatever becomes of them meanwhile."""

import asyncio
import contextlib
import errno
import os
import socket
import threading
from collections.abc import AsyncIterator, Collection
from pathlib import Path

import pytest

from supervisor.system import watching
from supervisor.system.watching import Watch
from supervisor.vmm import inotify
from tests.harness.waiting import until

LONG = 30.0
SHORT = 0.05


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    made = Watch()
    yield made
    made.close()


async def told(watch: Watch, paths: Collection[Path], seconds: float = LONG) -> bool:
    """Return whether a change was told of within some seconds."""
    watch.set(paths)
    try:
        async with asyncio.timeout(seconds):
            await watch.wait(2 * LONG, 0)
    except TimeoutError:
        return False
    return True


async def test_changes_in_each_directory_are_told_and_none_below_or_elsewhere(watch: Watch, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    (one / "below").mkdir(parents=True)
    two.mkdir()
    for change in (lambda: (one / "a").touch(), lambda: (two / "b").write_text("b"), lambda: (one / "a").unlink()):
        watch.set((one, two))
        change()
        assert await told(watch, (one, two))
    assert not await told(watch, (one, two), SHORT)
    # The kernel tells that one is watched no longer.
    await told(watch, (one,), SHORT)
    (two / "c").touch()
    (one / "below" / "d").touch()
    assert not await told(watch, (one,), SHORT)


async def test_a_directory_that_another_took_the_place_of_is_watched_again(watch: Watch, tmp_path: Path) -> None:
    directory = tmp_path / "images"
    for _ in range(3):
        directory.mkdir()
        watch.set((directory,))
        directory.rmdir()
        assert await told(watch, (directory,))
        assert not await told(watch, (directory,), SHORT)
    directory.mkdir()
    watch.set((directory,))
    (directory / "file").touch()
    assert await told(watch, (directory,))


@pytest.mark.parametrize("name", ["inotify", "add_watch"])
async def test_without_a_watch_it_is_looked_when_the_time_is_up(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    def refuse(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(watching, name, refuse)
        watch.set((tmp_path,))
        async with asyncio.timeout(LONG):
            await watch.wait(SHORT, 0)
    watch.set((tmp_path,))
    (tmp_path / "file").touch()
    assert await told(watch, (tmp_path,)), "it is begun as soon as it can be had"


def descriptors() -> list[str]:
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - the listing's own descriptor is among them
        with contextlib.suppress(FileNotFoundError):
            found.append(os.readlink(f"/proc/self/fd/{name}"))  # noqa: PTH115
    return [one for one in found if one == "anon_inode:inotify"]


@pytest.mark.parametrize("closed", ["before it begins", "while it hangs"])
async def test_a_watch_that_is_closed_while_a_thread_sets_it_leaves_no_descriptor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, closed: str
) -> None:
    before, hangs, go_on = len(descriptors()), threading.Event(), threading.Event()
    name = "inotify" if closed == "before it begins" else "add_watch"
    real = getattr(watching, name)

    def hang(*arguments: object) -> int:
        hangs.set()
        go_on.wait(LONG)
        return int(real(*arguments))

    made = Watch()
    monkeypatch.setattr(watching, name, hang)
    if closed == "before it begins":
        made.close()
    setting = asyncio.create_task(asyncio.to_thread(made.set, (tmp_path, tmp_path / "gone")))
    if closed == "while it hangs":
        await asyncio.to_thread(hangs.wait, LONG)
        made.close()
    go_on.set()
    await setting
    await until(lambda: len(descriptors()) == before)


async def test_a_directory_that_hangs_keeps_no_other_from_being_watched(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, real = threading.Event(), watching.add_watch

    def hang(fd: int, path: Path, events: int) -> int:
        if path.name == "hangs":
            go_on.wait(LONG)
        return real(fd, path, events)

    monkeypatch.setattr(watching, "add_watch", hang)
    (tmp_path / "fine").mkdir()
    adding = asyncio.create_task(asyncio.to_thread(watch.add, tmp_path / "hangs"))
    watch.add(tmp_path / "fine")
    watch.keep((tmp_path / "fine", tmp_path / "hangs"))
    (tmp_path / "fine" / "file").touch()
    async with asyncio.timeout(LONG):
        await watch.wait(2 * LONG, 0)
    go_on.set()
    await adding


async def test_a_socket_is_found_without_being_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or no VM could be started once the user has fs.inotify.max_user_instances."""

    def refuse() -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(inotify, "inotify", refuse)
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listener:
        async with asyncio.timeout(LONG), inotify.creations(tmp_path) as created:
            found = asyncio.create_task(inotify.until_listening(path, created))
            await asyncio.sleep(0)
            listener.bind(str(path))
            listener.listen()
            assert await found > 0
