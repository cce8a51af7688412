"""Modes: those of everything that supervisor, page servers and VMMs make are the same, whatever the umask was."""

import os
import re
import stat
from collections.abc import Iterator

import pytest

from supervisor.models import CheckpointRequest, ForkRequest
from supervisor.store.layout import KERNEL
from tests.harness.supervisor_process import Home, supervisor, walking_source

PROGRAM = re.compile(r"data/jail/(program|firecracker)/.*/(firecracker|vmm)")


@pytest.fixture(params=(0, 0o777), ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    """Give what is started an umask."""
    before = os.umask(request.param)
    yield
    os.umask(before)


def modes(home: Home) -> dict[str, int]:
    """Return the modes of everything that was made in a home's directories: a kernel is a hard link to its image's."""
    everything = [path for folder in (home.data, home.run) for path in (folder, *folder.rglob("*"))]
    found = [path for path in everything if path.name != KERNEL]
    return {str(path.relative_to(home.root)): stat.S_IMODE(path.lstat().st_mode) for path in found}


async def test_nothing_is_open_to_others_whatever_the_umask(home: Home, umask: None, userfaultfd: None) -> None:
    home.options = ("--log-file", str(home.data / "supervisor.log"))
    async with supervisor(home) as running:
        await walking_source(running.client, "source", "hot_mib=4")
        await running.client.checkpoint("source", CheckpointRequest(name="copy"))
        await running.client.standby("source")
        await running.client.fork("source", ForkRequest(name="fork", share_memory=True, target_state="Running"))
        found = modes(home)
        for name in ("fork", "copy", "source"):
            await running.client.delete(name)
    assert (found["data"], found["run"], found["run/pages"]) == (0o700, 0o750, 0o750)
    assert found["run/supervisor.sock"] == 0o660
    assert found["data/supervisor.log"] == 0o640
    assert any(name.startswith("run/pages/") for name in found)
    # Firecracker's own program, in directories that nobody else may enter.
    programs = {name for name in found if PROGRAM.fullmatch(name)}
    others = {name: mode for name, mode in found.items() if name not in programs}
    too_open = {name: oct(mode) for name, mode in others.items() if mode & 0o027 and mode not in (0o750, 0o660)}
    unusable = {name: oct(mode) for name, mode in found.items() if not mode & 0o400}
    assert (too_open, unusable) == ({}, {})
