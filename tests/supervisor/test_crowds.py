"""Crowds at the API's socket: others are answered, guests have their descriptors, and memory and log are bounded."""

import asyncio
import json
import os
import resource
import signal
import stat
import sys
from asyncio.subprocess import PIPE

import psutil
import pytest

from forktui.client.api import ApiError, SupervisorClient
from supervisor.models import ForkRequest
from supervisor.system.descriptors import opened_by
from tests.harness.crowd import BEGUN, EVENTS, crowd
from tests.harness.supervisor_process import PATIENCE, Home, RunningSupervisor, guest, supervisor, until
from tests.harness.verified_guests import standby_source

DESCRIPTORS = 256
LOG_BYTES = 64 << 10
MEMORY_BYTES = 32 << 20
"""That the supervisor may take for a crowd."""
SHARED = ForkRequest(name="fork", share_memory=True, target_state="Running")


def memory(running: RunningSupervisor) -> int:
    return int(psutil.Process(running.process.pid).memory_info().rss)


async def kill_page_server(running: RunningSupervisor) -> None:
    """Kill the page server, and return when the next one serves and its fork walks on."""
    client = running.client
    (before,) = (await until(lambda host: bool(host.templates[0].page_server_pid), client)).templates
    passes = guest(await until(lambda host: guest(host, "fork").passes >= 1, client), "fork").passes
    assert before.page_server_pid is not None
    os.kill(before.page_server_pid, signal.SIGKILL)
    await until(lambda host: host.templates[0].page_server_pid not in (None, before.page_server_pid), client)
    await until(lambda host: guest(host, "fork").passes > passes and not guest(host, "fork").corrupt, client)


async def test_1000_idle_and_500_slow_peers_at_256_descriptors_harm_nobody_else(home: Home) -> None:
    async with supervisor(home) as running:
        client, pid = running.client, running.process.pid
        await standby_source(client, "source", "passes=0")
        await client.fork("source", SHARED)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        memory_before, log_before = memory(running), running.log.stat().st_size
        with crowd(home.socket) as idle, crowd(home.socket) as slow:
            await asyncio.to_thread(idle.join, 1000)
            await asyncio.to_thread(slow.join, 500, BEGUN)
            killed = asyncio.create_task(kill_page_server(running))
            answered = 0
            while not killed.done():
                slow.trickle()
                assert [one.name for one in await client.instances()] == ["source", "fork"]
                answered += 1
            await killed
            assert answered > 0
            assert idle.left() + slow.left() < DESCRIPTORS // 2
            second = await client.fork("source", SHARED.model_copy(update={"name": "second"}))
            await until(lambda host: guest(host, "second").passes >= 1, client)
            assert memory(running) - memory_before < MEMORY_BYTES
            assert running.log.stat().st_size - log_before < LOG_BYTES, running.log.read_text()[-2000:]
        await client.delete(second.id)
    log = running.log.read_text()
    assert "Traceback" not in log
    assert "times more in 10 s" in log


async def test_readers_of_events_fill_no_more_than_half_and_a_lost_page_server_is_replaced(embedded: Home) -> None:
    """Streams give way to nobody while they read: those that are too many are told so."""
    async with supervisor(embedded) as running:
        client, pid = running.client, running.process.pid
        await standby_source(client, "source", "passes=0")
        await client.fork("source", SHARED)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        with crowd(embedded.socket) as readers:
            await asyncio.to_thread(readers.join, 400, EVENTS)
            statuses = [(await asyncio.to_thread(peer.recv, 1 << 20)).split(b"\r\n")[0] for peer in readers.peers]
            told, refused = statuses.count(b"HTTP/1.1 200 OK"), statuses.count(b"HTTP/1.1 503 Service Unavailable")
            assert 20 < told < DESCRIPTORS // 4
            assert told + refused >= 390, statuses
            assert len(await client.instances()) == 2
            for peer in readers.peers[:4]:
                peer.close()
            async with asyncio.timeout(PATIENCE):
                while not await followed(client):
                    await client.health()
            await kill_page_server(running)


async def followed(client: SupervisorClient) -> bool:
    """Return whether events are told to one more."""
    try:
        return bool(await until(lambda host: True, client))
    except ApiError:
        return False


async def test_the_limit_follows_what_guests_leave(embedded: Home) -> None:
    """Connections that only wait go when descriptors become few, and the owner is let in however few there are."""
    async with supervisor(embedded) as running:
        client, pid = running.client, running.process.pid
        with crowd(embedded.socket) as idle:
            await asyncio.to_thread(idle.join, 200)
            await client.health()
            assert idle.left() == 200
            opened = opened_by(pid)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (opened + 8, DESCRIPTORS))
            async with asyncio.timeout(PATIENCE):
                while idle.left() > opened // 2:
                    await client.health()
        await client.health()


CHILD = """
import json, os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
peers, words = [], []
for _ in range(int(sys.argv[2])):
    peer = socket.socket(socket.AF_UNIX)
    peer.connect(sys.argv[1])
    peer.sendall(b"GET /events HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n")
    peers.append(peer)
for peer in peers:
    words.append(peer.recv(65536).decode("utf-8", "replace"))
print(json.dumps(words), flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="root, to become another user")
async def test_a_user_who_takes_all_that_he_may_leaves_room_for_the_owner(embedded: Home) -> None:
    embedded.options = ("--max-connections", "32", "--max-connections-of-user", "16")
    async with supervisor(embedded) as running:
        for path in (embedded.socket, embedded.run, embedded.root):
            path.chmod(stat.S_IMODE(path.stat().st_mode) | (0o006 if path == embedded.socket else 0o005))
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-I", "-c", CHILD, str(embedded.socket), "40", stdin=PIPE, stdout=PIPE, cwd="/",
            limit=1 << 24,
        )  # fmt: skip
        assert child.stdout is not None
        words = json.loads(await asyncio.wait_for(child.stdout.readline(), PATIENCE))
        told = [text for text in words if text.startswith("HTTP/1.1 200 ")]
        refused = [text for text in words if text.startswith("HTTP/1.1 503 ")]
        assert len(told) == 8
        assert len(refused) >= 24
        assert any("uid 65534 has 8 streams and waits, the most that one user may have" in text for text in refused)
        assert await running.client.instances() == []
        with crowd(embedded.socket) as own:
            await asyncio.to_thread(own.join, 20, EVENTS)
            assert await running.client.instances() == []
        child.kill()
        await child.wait()
