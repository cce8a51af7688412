"""The control socket of a page server: what is asked there wrongly, and by whom."""

import asyncio
import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import PageServerError
from supervisor.runtime.attaching import listener_for
from supervisor.system.control_socket import MOST_CONNECTIONS, MOST_DESCRIPTORS, ControlSocket
from supervisor.system.descriptors import opened_by
from supervisor.system.loop import Loop
from supervisor.uffd.handshake import listen
from tests.harness.fork_in_miniature import TIMEOUT
from tests.harness.page_server_template import Template
from tests.harness.scarce_epoll import scarce

pytestmark = pytest.mark.usefixtures("userfaultfd")


async def test_paths_and_requests_that_cannot_be_are_refused(template: Template) -> None:
    server = await template.serve()

    async def refused(listener: socket.socket, page_map: Path, vmm_pid: int, **terms: Any) -> str:
        with pytest.raises(PageServerError) as told:
            await server.attach("one", listener=listener, page_map=page_map, vmm_pid=vmm_pid, **terms)
        return told.value.message

    with listener_for(template.directory / "u") as listener, socket.socket(socket.AF_UNIX) as deaf:
        there = template.map("one")
        assert "no VMM has pid" in await refused(listener, there, 1 << 22)
        missing = template.directory / "missing" / "map"
        assert "cannot be made: No such file" in await refused(listener, missing, os.getpid())
        wrong = "prefetch 'never' is none of before_resume, concurrent, off"
        assert wrong in await refused(listener, there, os.getpid(), prefetch="never")
        assert "no Unix socket that listens" in await refused(deaf, there, os.getpid())
        assert not there.exists()
    assert (await server.status()).forks == ()
    with pytest.raises(PageServerError, match="107 bytes, and this one has"), listener_for(Path("x" * 108)):
        pass


async def test_many_that_come_with_descriptors_at_once_wait_for_room(template: Template) -> None:
    """A socket takes so many lines before they are read, and each of these comes with a socket."""
    server = await template.serve()
    os.kill(server.pid, signal.SIGSTOP)
    with listener_for(template.directory / "u") as listener:
        terms: dict[str, Any] = {"listener": listener, "vmm_pid": os.getpid(), "prefetch": "never"}
        asked = [
            asyncio.create_task(server.attach(f"fork{number}", page_map=template.map(f"fork{number}"), **terms))
            for number in range(300)
        ]
        status = asyncio.create_task(server.status())
        await asyncio.wait(asked, timeout=0.1)
        os.kill(server.pid, signal.SIGCONT)
        refused = await asyncio.gather(*asked, return_exceptions=True)
    assert {str(error) for error in refused} == {"prefetch 'never' is none of before_resume, concurrent, off"}
    assert not list(template.directory.glob("*.map*"))
    assert (await status).forks == ()


async def test_garbage_on_the_control_socket_is_answered_or_dropped(template: Template) -> None:
    await template.serve()

    async def say(data: bytes) -> bytes:
        reader, writer = await asyncio.open_unix_connection(template.control, limit=1 << 20)
        writer.write(data)
        try:
            return await asyncio.wait_for(reader.readline(), TIMEOUT)
        except ConnectionResetError:
            return b""
        finally:
            writer.close()

    assert b"no JSON object" in await say(b"hello\n")
    assert b"no JSON object" in await say(b"[" * 20000 + b"\n")
    assert b"no JSON object" in await say(b"[1]\n")
    assert json.loads(await say(b'{"id": 7, "verb": "dance"}\n')) == {
        "id": 7,
        "error": "'dance' is no verb of a page server",
    }
    assert b"attach request is malformed" in await say(b'{"id": 8, "verb": "attach", "fork_id": "x"}\n')
    assert b"attach request is malformed" in await say(
        b'{"id": 8, "verb": "attach", "fork_id": "x", "given": ["vmm"]}\n'
    )
    assert await say(b"x" * 200000) == b""
    assert json.loads(await say(b'{"id": 1, "verb": "status"}\n'))["result"]["forks"] == []


async def test_its_control_socket_is_its_users_alone_and_nobody_takes_it(template: Template) -> None:
    await template.serve()
    assert template.control.stat().st_mode & 0o777 == 0o600
    with pytest.raises(PageServerError, match="another page server listens"):
        await template.serve()


def test_a_peer_that_there_is_no_room_to_watch_is_hung_up_on_and_the_next_is_answered(run_dir: Path) -> None:
    loop = Loop()
    epoll = scarce(loop, room=1)
    control = ControlSocket(loop, run_dir / "control", lambda _, reply: reply({"result": None}), listen)
    control.put_back()

    def say() -> bytes:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.settimeout(TIMEOUT)
            peer.connect(str(run_dir / "control"))
            peer.send(b'{"id": 1, "verb": "ping"}\n')
            for _ in range(2):
                for fd, _ in loop._epoll.poll(0):
                    loop._readers[fd]()
            return peer.recv(100)

    with pytest.raises(ConnectionResetError):
        say()
    epoll.room = 1
    assert json.loads(say()) == {"id": 1, "result": None}
    control.close()
    loop.close()


async def test_idle_peers_give_way_to_those_that_ask(template: Template) -> None:
    server = await template.serve()
    pid = (await server.status()).pid
    before = opened_by(pid)
    with contextlib.ExitStack() as stack:
        for number in range(2 * MOST_CONNECTIONS):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(str(template.control))
            assert number % 16 or (await server.status()).pid == pid, "who has asked does not give way"
        assert (await server.status()).forks == ()
        assert opened_by(pid) <= before + MOST_CONNECTIONS


async def test_descriptors_without_a_request_are_not_kept(template: Template) -> None:
    server = await template.serve()
    pid = (await server.status()).pid
    before = opened_by(pid)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(str(template.control))
        peer.settimeout(TIMEOUT)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(4 * MOST_DESCRIPTORS):
                socket.send_fds(peer, [b" "], [peer.fileno()])
                await server.status()
        assert opened_by(pid) <= before + MOST_DESCRIPTORS
        with contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
