"""Being told of changes in directories, whatever becomes of them meanwhile."""

import asyncio
import errno
import socket
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest

from supervisor.system import watching
from supervisor.system.watching import Watch
from supervisor.vmm import inotify

LONG = 30.0
SHORT = 0.05


@pytest.fixture
async def watch() -> AsyncIterator[Watch]:
    made = Watch()
    yield made
    made.close()


async def told(watch: Watch, paths: Iterable[Path], seconds: float = LONG) -> bool:
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
