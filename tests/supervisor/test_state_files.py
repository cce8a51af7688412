"""A state-file that is not what it was is named before a VMM is started, which would open whatever is there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from supervisor.models import ForkRequest, State
from tests.harness.refusals import refused
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.verified_guests import standby_source


def huge(path: Path) -> None:
    path.unlink()
    path.touch()
    os.truncate(path, 8 << 30)


def linked(path: Path) -> None:
    path.unlink()
    path.symlink_to("/dev/zero")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def other(path: Path) -> None:
    path.unlink()
    path.write_text("no state at all")


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "gone": (Path.unlink, "No such file or directory"),
    "fifo": (fifo, "it is a FIFO, and no file"),
    "link": (linked, "it is a symbolic link, and no file"),
    "folder": (folder, "it is a directory, and no file"),
    "huge": (huge, "has 8589934592 bytes, and no VMM loads more than"),
    "other": (other, "is neither Firecracker's"),
}


@pytest.mark.parametrize("what", SPOILT)
async def test_a_state_file_that_is_not_what_it_was_is_named_before_anything_is_started(home: Home, what: str) -> None:
    spoil, words = SPOILT[what]
    async with supervisor(home) as running:
        client = running.client
        source = await standby_source(client, "source", "hot_mib=1")
        [state] = (home.data / "instances" / source.id).glob("state.*")
        before = {process.pid for process in home.processes()}
        spoil(state)
        for asked in (
            client.restore("source"),
            client.fork("source", ForkRequest(share_memory=True, target_state="Running")),
            client.fork("source", ForkRequest(target_state="Running")),
        ):
            error = await refused(asked)
            assert error.status == 409, error.message
            assert error.message.startswith(f"source: its {state.name} cannot be used: "), error.message
            assert words in error.message
            assert error.message.endswith("; put it back")
        assert [one.state for one in await client.instances()] == [State.STANDBY]
        assert {process.pid for process in home.processes()} == before
        await client.delete("source")
