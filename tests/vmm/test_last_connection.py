"""A peer whose socket was removed: nothing that is given up closes the connection, which is the only way to it."""

import asyncio
import gc
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from supervisor.errors import VmmError, VmmSilentError
from supervisor.vmm.api_client import ApiClient

HEADERS_END = b"\r\n\r\n"
DONE = b"HTTP/1.1 204 No Content\r\n\r\n"


class Peer:
    """Answers each request over one of its connections once it may."""

    def __init__(self, socket: Path) -> None:
        self.connections = 0
        self.asked: list[str] = []
        self.is_asked = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._socket = socket

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                request = (await reader.readuntil(HEADERS_END)).decode()
                length = next((int(line[16:]) for line in request.splitlines() if line[:16] == "Content-Length: "), 0)
                self.asked.append((await reader.readexactly(length)).decode())
                self.is_asked.set()
                await self.may_answer.wait()
                writer.write(DONE)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def fall_silent(self) -> None:
        self.may_answer.clear()
        self.is_asked.clear()

    async def why_gone(self) -> str:
        return "cannot be reached"

    def lose_socket(self) -> None:
        self._socket.unlink()

    def in_place(self) -> bool:
        return self._socket.exists()


@asynccontextmanager
async def silent_peer(socket: Path, lost: bool = True) -> AsyncIterator[tuple[Peer, ApiClient]]:
    """Yield a peer that has answered once and does so no more, its socket removed, with a client of it."""
    peer = Peer(socket)
    server = await asyncio.start_unix_server(peer.serve, socket)
    client = ApiClient(socket, "web-1", os.getpid(), peer.why_gone, peer.in_place)
    try:
        await client.resume()
        peer.fall_silent()
        if lost:
            peer.lose_socket()
        yield peer, client
    finally:
        peer.may_answer.set()
        await client.close()
        server.close()
        await server.wait_closed()


async def cancelled(peer: Peer, client: ApiClient) -> None:
    asking = asyncio.create_task(client.pause())
    await peer.is_asked.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def timed_out(peer: Peer, client: ApiClient) -> None:
    with pytest.raises(VmmSilentError, match="did not answer PATCH /vm within 0 s"):
        await client.resume(0.05)


GIVEN_UP = pytest.mark.parametrize("give_up", [cancelled, timed_out])
GiveUp = Callable[[Peer, ApiClient], Awaitable[None]]


@GIVEN_UP
async def test_what_nobody_waits_for_any_more_is_answered_before_the_next(run_dir: Path, give_up: GiveUp) -> None:
    async with silent_peer(run_dir / "s") as (peer, client):
        await give_up(peer, client)
        nexts = [asyncio.create_task(client.resume(seconds)) for seconds in (20, 30)]
        await timed_out(peer, client)
        assert len(peer.asked) == 2, "each in its turn"
        peer.may_answer.set()
        await asyncio.gather(*nexts)
        assert (len(peer.asked), peer.connections) == (4, 1)


@GIVEN_UP
async def test_where_another_connection_can_be_had_it_is(run_dir: Path, give_up: GiveUp) -> None:
    async with silent_peer(run_dir / "s", lost=False) as (peer, client):
        await give_up(peer, client)
        asking = asyncio.create_task(client.resume())
        peer.is_asked.clear()
        await peer.is_asked.wait()
        assert peer.connections == 2
        peer.may_answer.set()
        await asking


async def test_a_socket_that_is_removed_while_a_request_waits_is_heeded(run_dir: Path) -> None:
    async with silent_peer(run_dir / "s", lost=False) as (peer, client):
        asking = asyncio.create_task(client.pause())
        await peer.is_asked.wait()
        peer.lose_socket()
        asking.cancel()
        await asyncio.wait((asking,))
        peer.may_answer.set()
        await client.resume()
        assert peer.connections == 1


async def test_what_is_asked_at_the_same_time_takes_turns(run_dir: Path) -> None:
    async with silent_peer(run_dir / "s") as (peer, client):
        peer.may_answer.set()
        await asyncio.gather(*(client.pause() for _ in range(3)))
        assert (len(peer.asked), peer.connections) == (4, 1)


async def test_nothing_is_left_of_it_once_the_client_is_closed(run_dir: Path) -> None:
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    async with silent_peer(run_dir / "s") as (peer, client):
        await cancelled(peer, client)
        waiting = asyncio.create_task(client.resume())
        await timed_out(peer, client)
        tasks = asyncio.all_tasks()
        await client.close()
        with pytest.raises(VmmError, match="was not answered: the VMM cannot be reached"):
            await waiting
        assert [task for task in asyncio.all_tasks() & tasks if "ApiClient" in repr(task)] == []
    gc.collect()
    assert complaints == []
