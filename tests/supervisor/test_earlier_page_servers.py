"""Page servers of the version before this one: they run on, are given forks, and are replaced by confined ones."""

import json
import os
import signal
from pathlib import Path
from typing import Final

import psutil
import pytest

from supervisor.models import ForkRequest
from tests.harness.earlier import unpacked
from tests.harness.supervisor_process import Home, supervisor, until
from tests.harness.verified_guests import standby_source, two_more_passes

BEFORE: Final = "29900f8"
"""The last commit whose page servers bind sockets and make page maps themselves."""
FORK: Final = ForkRequest(name="before", share_memory=True, target_state="Running")


def uid_of(pid: int | None) -> int:
    return psutil.Process(pid).uids().real


async def test_a_page_server_of_the_version_before_serves_on_and_is_replaced_by_a_confined_one(
    home: Home, userfaultfd: None, tmp_path: Path
) -> None:
    home.environment = {"PYTHONPATH": str(unpacked(BEFORE, tmp_path))}
    async with supervisor(home) as running:
        await standby_source(running.client, "source", "passes=0", "hot_mib=2")
        await running.client.fork("source", FORK)
        await two_more_passes(running.client, "before")
        host = await until(lambda host: bool(host.templates[0].recorded_pages), running.client)
        (template,) = host.templates
        await running.end(signal.SIGKILL)
    directory = home.data / "templates" / template.id
    assert (directory / "hot_pages").exists()
    home.environment = {}
    async with supervisor(home) as running:
        client = running.client
        host = await until(lambda host: bool(host.templates[0].page_server_pid), client)
        assert host.templates[0].page_server_pid == template.page_server_pid
        await client.fork("source", FORK.model_copy(update={"name": "after"}))
        await two_more_passes(client, "before", "after")
        for name in (f"{template.id}.pages", "pages"):
            assert (home.run / name).exists()
        for path in home.run.glob("pages/*.map"):
            path.unlink()
        await until(lambda _: len(list(home.run.glob("pages/*.map"))) == 2, client)
        assert template.page_server_pid is not None
        psutil.Process(template.page_server_pid).kill()
        host = await until(lambda host: bool(host.templates[0].page_server_restarts), client)
        await two_more_passes(client, "before", "after")
        assert host.templates[0].recorded_pages == template.recorded_pages
        assert not (directory / "hot_pages").exists()
        assert (directory / "recorded" / "hot_pages").exists()
        if os.geteuid() == 0:
            record = json.loads((directory / "template.json").read_text())
            assert uid_of(host.templates[0].page_server_pid) == record["page_server_uid"]
        for name in ("before", "after", "source"):
            await client.delete(name)
    assert home.processes() == []


@pytest.mark.parametrize("lost", ["*.pages", "pages/*.map"])
async def test_one_that_has_lost_its_files_puts_them_back_itself(
    home: Home, userfaultfd: None, tmp_path: Path, lost: str
) -> None:
    home.environment = {"PYTHONPATH": str(unpacked(BEFORE, tmp_path))}
    async with supervisor(home) as running:
        await standby_source(running.client, "source", "passes=0", "hot_mib=2")
        await running.client.fork("source", FORK)
        (template,) = (await until(lambda host: bool(host.templates[0].page_server_pid), running.client)).templates
        await running.end(signal.SIGKILL)
    for path in home.run.glob(lost):
        path.unlink()
    home.environment = {}
    async with supervisor(home) as running:
        host = await until(lambda host: bool(host.templates[0].page_server_pid), running.client)
        assert host.templates[0].page_server_pid == template.page_server_pid
        await two_more_passes(running.client, "before")
        assert list(home.run.glob(lost)) != []
        for name in ("before", "source"):
            await running.client.delete(name)
