"""A supervisor that the tests of a file share, and who speaks to it."""

import contextlib
import select
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.host.host import Host
from supervisor.settings import Settings
from tests.harness.supervisor_process import PATIENCE, Home


@dataclass(frozen=True)
class Served:
    """A supervisor that the tests of this file share."""

    socket: Path
    log: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    home = Home(Path(tmp_path_factory.mktemp("ft")))
    log = home.root / "supervisor.log"
    with log.open("wb") as errors, subprocess.Popen(home.command(), stdout=subprocess.PIPE, stderr=errors) as process:
        assert process.stdout is not None
        try:
            assert select.select([process.stdout], [], [], PATIENCE)[0], "the supervisor is not ready"
            assert process.stdout.readline().decode() == f"ready {home.socket}\n", log.read_text()
            yield Served(home.socket, log)
            process.terminate()
            assert process.wait(PATIENCE) == 0, log.read_text()
        finally:
            home.kill_everything()


@pytest.fixture
async def client(served: Served) -> AsyncIterator[SupervisorClient]:
    async with SupervisorClient(served.socket) as made:
        yield made
        for _ in range(2):
            for instance in await made.instances():
                with contextlib.suppress(ApiError):
                    await made.delete(instance.id)
        assert await made.instances() == []


@pytest.fixture
def http(served: Served) -> Iterator[httpx.Client]:
    with httpx.Client(base_url="http://localhost", transport=httpx.HTTPTransport(uds=str(served.socket))) as made:
        yield made


@pytest.fixture
async def host(run_dir: Path) -> AsyncIterator[Host]:
    settings = Settings(data_dir=run_dir / "data", run_dir=run_dir, hypervisor="embedded")
    settings.data_dir.mkdir()
    opened = await Host.open(settings)
    yield opened
    await opened.close()
