"""Page servers that are gone when a supervisor starts: an alarm where a fork waits for one, a note where none does."""

import json
import os
import signal
from collections.abc import Callable

import psutil
import pytest

from forktui.client.api import SupervisorClient
from supervisor.errors import PageServerError
from supervisor.models import CreateRequest, ForkRequest, State
from supervisor.system import followed_process
from supervisor.uffd import handle
from tests.harness.opened_host import opened_host
from tests.harness.supervisor_process import PATIENCE, Home, supervisor, until
from tests.harness.verified_guests import standby_source
from tests.harness.waiting import until as until_true


async def served_fork(client: SupervisorClient) -> tuple[int, int]:
    """Make a fork that walks for ever and return the pids of its page server and of its VMM."""
    source = await standby_source(client, "source", "passes=0", "hot_mib=4")
    fork = await client.fork(source.id, ForkRequest(name="fork", share_memory=True, target_state="Running"))
    (template,) = (await until(lambda host: bool(host.templates), client)).templates
    assert template.page_server_pid is not None
    assert fork.vmm_pid is not None
    return template.page_server_pid, fork.vmm_pid


async def said_by_the_next(home: Home, done: Callable[[], bool] = lambda: True) -> list[str]:
    """Start a supervisor, end it once that is done, and return what it logs of page servers."""
    before = len((home.root / "supervisor.log").read_text())
    async with supervisor(home) as running:
        await until_true(done)
    return [line for line in running.log.read_text()[before:].splitlines() if "page server" in line]


async def test_one_that_no_fork_needs_is_no_alarm_and_is_forgotten(embedded: Home) -> None:
    """As after a reboot of the host, which ends every VMM and page server."""
    async with supervisor(embedded) as running:
        processes = [psutil.Process(pid) for pid in (running.process.pid, *await served_fork(running.client))]
        for process in processes:
            process.kill()
        await running.end(signal.SIGKILL)
    record = next((embedded.data / "templates").glob("*/template.json"))
    pid = json.loads(record.read_text())["page_server"]["pid"]
    (said,) = await said_by_the_next(embedded, lambda: json.loads(record.read_text())["page_server"] is None)
    assert f"pid {pid}" in said
    assert " INFO " in said
    assert await said_by_the_next(embedded) == []
    async with supervisor(embedded) as running:
        client = running.client
        await client.fork("source", ForkRequest(name="other", share_memory=True, target_state="Running"))
        await until(lambda host: bool(host.templates[0].page_server_pid), client)
        for name in ("fork", "other", "source"):
            await client.delete(name)
    assert embedded.processes() == []


async def test_one_that_a_fork_waits_for_is_an_alarm_and_is_replaced(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        lost, _ = await served_fork(running.client)
        for pid in (running.process.pid, lost):
            psutil.Process(pid).kill()
        await running.end(signal.SIGKILL)
    async with supervisor(embedded) as running:
        client = running.client
        host = await until(lambda host: any(one.page_server_restarts for one in host.templates), client)
        assert host.templates[0].page_server_pid not in (None, lost)
        alarms = [line for line in running.log.read_text().splitlines() if " ERROR " in line]
        assert any("page server of source" in line and f"pid {lost}," in line for line in alarms)
        assert any("they get one" in line for line in alarms)
        for name in ("fork", "source"):
            await client.delete(name)
    assert embedded.processes() == []


async def test_one_that_was_killed_leaves_no_socket_once_its_template_is_gone(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        lost, _ = await served_fork(client)
        await client.stop("fork")
        psutil.Process(lost).kill()
        await until(lambda host: host.templates[0].page_server_pid is None, client)
        for name in ("fork", "source"):
            await client.delete(name)
        assert list(embedded.run.glob("*.pages")) == []


async def test_a_directory_in_the_place_of_its_socket_hinders_no_deletion(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        await served_fork(client)
        (control,) = embedded.run.glob("*.pages")
        control.unlink()
        control.mkdir()
        for name in ("fork", "source"):
            await client.delete(name)
        assert control.is_dir()
    assert embedded.processes() == []


async def test_one_that_does_not_end_is_told_and_ended_by_the_next_deletion(
    embedded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that waits in the kernel for a disk."""
    async with opened_host(embedded) as host:
        source = await host.create(CreateRequest(name="source", image="pagewalker"))
        await host.queries.wait("source", State.RUNNING, PATIENCE)
        await host.standby(source.id)
        fork = await host.fork(source.id, ForkRequest(name="fork", share_memory=True, target_state="Running"))
        (pid,) = host._parts.page_servers.pids
        await host.stop(fork.id)
        os.kill(pid, signal.SIGSTOP)
        with monkeypatch.context() as hung:
            hung.setattr(followed_process, "kill", lambda _: None)
            hung.setattr(followed_process, "KILL_TIMEOUT", 0.1)
            hung.setattr(handle, "_STOP_SECONDS", 0.1)
            with pytest.raises(PageServerError, match=f"pid {pid} has not ended"):
                await host.delete(source.id, cascade=True)
        await host.delete(source.id, cascade=True)
        assert not psutil.pid_exists(pid)
    assert embedded.processes() == []
