"""Out of file descriptors: what needs one fails and says so, nothing leaks, and the rest is served."""

import asyncio
import contextlib
import resource
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import psutil
from pydantic import BaseModel

from forktui.client.api import SupervisorClient
from supervisor.models import CreateRequest, FanOutRequest, ForkRequest
from tests.harness.supervisor_process import PATIENCE, Home, guest, supervisor, until
from tests.harness.verified_guests import standby_source

CODES = ("storage_failed", "vmm_failed", "page_server_failed", "insufficient_resources")
SHARED = ForkRequest(name="fork", share_memory=True, target_state="Running")
ENOUGH = 48
"""More descriptors than a fork takes."""


def opened(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextlib.contextmanager
def limited(pid: int, limit: int) -> Iterator[None]:
    """Let a process have no descriptor from `limit` on opened while the context lasts."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


class Connection:
    """One connection to the supervisor that was accepted before descriptors were short, and is kept."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def ask(self, method: str, path: str, body: BaseModel | None = None) -> tuple[int, Any]:
        text = body.model_dump_json() if body else None
        headers = {"Content-Type": "application/json"}
        async with asyncio.timeout(PATIENCE), self._session.request(method, path, data=text, headers=headers) as answer:
            return answer.status, await answer.json()


@contextlib.asynccontextmanager
async def connected(home: Home) -> AsyncIterator[Connection]:
    async with aiohttp.ClientSession("http://x", connector=aiohttp.UnixConnector(str(home.socket), limit=1)) as session:
        connection = Connection(session)
        assert (await connection.ask("GET", "/health"))[0] == 200
        yield connection


async def test_a_fork_without_a_descriptor_leaves_nothing_at_whichever_step(embedded: Home) -> None:
    async with supervisor(embedded) as running, connected(embedded) as connection:
        client, pid = running.client, running.process.pid
        await standby_source(client)
        failures, status = 0, 0
        for limit in range(opened(pid), opened(pid) + ENOUGH):
            processes = {process.pid for process in embedded.processes()}
            with limited(pid, limit):
                status, answer = await connection.ask("POST", "/instances/source/fork", SHARED)
            if status == 201:
                break
            failures += 1
            assert answer["code"] in CODES, (answer, tracebacks(running.log))
            assert "Too many open files" in answer["message"], answer
            host = await until(lambda host: True, client)
            assert [one.name for one in host.instances] == ["source"]
            started = {process.pid for process in embedded.processes()} - processes
            assert started <= {template.page_server_pid for template in host.templates}, "it may stay for the next"
        assert status == 201
        assert failures > 4
        await until(lambda host: guest(host, "fork").restored and guest(host, "fork").passes >= 1, client)


def tracebacks(log: Path) -> str:
    return "\n".join(line for line in log.read_text().splitlines() if "  File" in line)[-3000:]


async def test_a_fan_out_beyond_the_descriptors_is_refused_or_fails_child_by_child(embedded: Home) -> None:
    async with supervisor(embedded) as running, connected(embedded) as connection:
        client, pid = running.client, running.process.pid
        await standby_source(client)
        await client.fork("source", SHARED)
        wanted = FanOutRequest(count=24, record="off")
        with limited(pid, opened(pid) + 24):
            status, refused = await connection.ask("POST", "/instances/source/fan-out", wanted)
            assert (status, refused["code"]) == (409, "insufficient_resources"), refused
            assert "descriptors" in refused["message"]
            forced = wanted.model_copy(update={"force": True})
            status, made = await connection.ask("POST", "/instances/source/fan-out", forced)
            assert status == 200, made
            errors = [child["error"] for child in made["children"] if child["error"]]
            assert 0 < len(errors) < 24
            assert all(error["code"] in CODES for error in errors), errors
            assert all("Too many open files" in error["message"] for error in errors), errors
            listed = {one["name"] for one in (await connection.ask("GET", "/instances"))[1]}
            made_names = {child["name"] for child in made["children"] if child["instance"]}
            assert listed == {"source", "fork", *made_names}
        rest = await client.fan_out("source", FanOutRequest(count=len(errors), record="off"))
        assert not [child.error for child in rest.children if child.error]
        names = [one.name for one in await client.instances() if one.name != "source"]
        host = await until(lambda host: all(guest(host, name).passes >= 1 for name in names), client)
        assert not [name for name in names if guest(host, name).corrupt]


async def test_peers_without_a_descriptor_wait_and_cost_nothing(embedded: Home) -> None:
    async with supervisor(embedded) as running, connected(embedded) as connection:
        process = psutil.Process(running.process.pid)
        await running.client.create(CreateRequest(name="one", image="pagewalker"))
        with limited(process.pid, 0):
            peers = [asyncio.create_task(knock(embedded)) for _ in range(3)]
            before = process.cpu_times()
            status, waited = await connection.ask("GET", "/instances/one/wait?state=Standby&timeout=2s")
            assert (status, waited["timed_out"]) == (200, True)
            after = process.cpu_times()
            assert after.user + after.system - before.user - before.system < 1.0, "half of the two seconds"
            assert not [peer for peer in peers if peer.done()]
        for peer in peers:
            assert await asyncio.wait_for(peer, PATIENCE) == ["one"]


async def knock(home: Home) -> list[str]:
    async with SupervisorClient(home.socket) as client:
        return [one.name for one in await client.instances()]
