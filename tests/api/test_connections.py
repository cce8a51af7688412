"""Connections below HTTP: whoever is slow, idle, half-closed or one of too many harms himself alone."""

import asyncio
import contextlib
import gzip
import itertools
import json
import os
import select
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import psutil
import pytest

from forktui.client.api import SupervisorClient
from supervisor.api import connection
from supervisor.api.connection_limits import ConnectionLimits
from supervisor.api.server import LIMITS, serve
from supervisor.errors import NotFoundError
from supervisor.host.host import Host
from supervisor.models import Activity, Event
from tests.harness.crowd import EVENTS, crowd, say
from tests.harness.supervisor_process import PATIENCE
from tests.harness.unix_http import connected

GET = b"GET /instances HTTP/1.1\r\nHost: x\r\n"
BODY = b'{"name":"a","image":"none"}'
POST = b"POST /instances HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture
async def path(host: Host, run_dir: Path) -> AsyncIterator[Path]:
    server = await serve(host, run_dir / "s.sock")
    yield server.socket_path
    await server.close()


def text_until_end(peer: socket.socket) -> bytes:
    """Return all that comes until the supervisor closes."""
    text = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := peer.recv(1 << 20):
            text += piece
    return text


def ask(path: Path, sent: bytes, *, half_close: bool = False) -> bytes:
    """Send bytes as they are, and return all that comes until the supervisor closes."""
    with connected(path) as peer:
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            peer.sendall(sent)
            if half_close:
                peer.shutdown(socket.SHUT_WR)
        return text_until_end(peer)


async def answered(path: Path) -> None:
    """Have a request of somebody else's answered."""
    text = await asyncio.to_thread(ask, path, GET + b"Connection: close\r\n\r\n")
    assert text.startswith(b"HTTP/1.1 200 OK\r\n"), text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (GET + b"\r\n", b"200"),
        (b"GET /health HTTP/1.0\r\n\r\n", b"200"),
        (POST + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY, b"400"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY), b"400"),
        (POST + b"Content-Length: 100\r\n\r\n" + BODY, b"400"),
        (POST + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(BODY), BODY), b"400"),
        (GET, b"400"),
        (b"G", b"400"),
    ],
)
async def test_a_request_followed_by_a_half_close_gets_its_answer(path: Path, sent: bytes, status: bytes) -> None:
    text = await asyncio.to_thread(ask, path, sent, half_close=True)
    assert text.split(b" ", 2)[1:2] == [status], text
    if status == b"400":
        words = [b"'none'", b"ended before its announced length", b"ended before its headers did"]
        assert sum(word in text for word in words) == 1, text


async def test_every_request_before_a_half_close_gets_its_answer(path: Path) -> None:
    text = await asyncio.to_thread(ask, path, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 200, half_close=True)
    assert text.count(b"HTTP/1.1 200 OK") == 200


async def test_ten_thousand_pipelined_requests_are_answered_in_turn(path: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 9_999)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    await answered(path)
    async with asyncio.timeout(PATIENCE):
        text = await reader.read(-1)
    assert text.count(b"HTTP/1.1 200 OK") == 10_000
    writer.close()


async def test_a_stream_goes_on_for_a_half_closed_reader_until_he_is_gone(path: Path, host: Host) -> None:
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(EVENTS)
    await asyncio.wait_for(reader.readuntil(b"event: reset"), PATIENCE)
    writer.write_eof()
    now = host.queries.snapshot().supervisor.started_at
    for word in ("one", "two"):
        host.events.publish(Activity(at=now, level="info", message=word))
        await asyncio.wait_for(reader.readuntil(word.encode()), PATIENCE)
    assert len(host.events._subscriptions) == 1
    writer.transport.abort()
    async with asyncio.timeout(PATIENCE):
        while host.events._subscriptions:
            await answered(path)


async def test_a_head_that_does_not_end_is_told_so(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)
    for begun in (b"GET /instances HTTP/1.1\r\nX: ", b"\r\n", b"G"):
        text = await asyncio.to_thread(ask, path, begun)
        assert text.startswith(b"HTTP/1.1 408 Request Timeout\r\n"), text
        assert b"the request's headers did not arrive within 0.1 s; send it whole" in text


async def test_a_head_that_trickles_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then is no reason to wait longer."""
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.1)

    def trickle() -> bytes:
        with connected(path) as peer:
            peer.sendall(GET + b"X: ")
            while not select.select([peer], [], [], 0.005)[0]:
                say(peer, b"y")
            return text_until_end(peer)

    trickling = asyncio.create_task(asyncio.to_thread(trickle))
    await answered(path)
    assert b" 408 " in await trickling


async def test_an_idle_connection_is_closed_without_a_word(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it would say might be taken for the answer to the next request."""
    monkeypatch.setattr(connection, "IDLE_SECONDS", 0.1)
    assert await asyncio.to_thread(ask, path, b"") == b""
    text = await asyncio.to_thread(ask, path, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    assert text.count(b"HTTP/1.1") == 1


async def test_streams_and_waits_are_not_held_to_these_bounds(
    path: Path, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HEAD_SECONDS", "IDLE_SECONDS", "READ_SECONDS", "END_SECONDS"):
        monkeypatch.setattr(connection, name, 0.02)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(EVENTS)
    await asyncio.wait_for(reader.readuntil(b"event: reset"), PATIENCE)
    for _ in range(20):
        await asyncio.to_thread(ask, path, b"")
    now = host.queries.snapshot().supervisor.started_at
    host.events.publish(Activity(at=now, level="info", message="still there"))
    await asyncio.wait_for(reader.readuntil(b"still there"), PATIENCE)
    writer.close()


@pytest.mark.parametrize("read_at_a_time", [0, 1])
async def test_an_answer_that_is_not_read_is_given_up(
    path: Path, read_at_a_time: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte of it now and then is no reason to wait longer."""
    monkeypatch.setattr(connection, "READ_SECONDS", 0.2)
    asked = b"GET /z HTTP/1.1\r\nHost: x\r\n\r\n" * 5_000

    def until_given_up() -> bytes:
        with connected(path) as peer:
            peer.setblocking(False)
            hang_up = select.poll()
            hang_up.register(peer, 0)
            peer.send(asked)
            text = b""
            for _ in range(int(PATIENCE * 100)):
                if hang_up.poll(10):
                    peer.settimeout(PATIENCE)
                    return text + text_until_end(peer)
                with contextlib.suppress(BlockingIOError):
                    text += peer.recv(read_at_a_time) if read_at_a_time else b""
        raise AssertionError("it is waited for")

    giving_up = asyncio.create_task(asyncio.to_thread(until_given_up))
    await answered(path)
    text = await giving_up
    assert 0 < text.count(b" 404 ") < 5_000


@pytest.mark.parametrize("encodings", [[b"gzip"], [b"deflate"], [b"br"], [b"identity", b"gzip"], [b"gzip, identity"]])
async def test_a_compressed_body_is_refused_unread(path: Path, encodings: list[bytes]) -> None:
    """Also where it expects to be told to go on: it is told not to send it."""
    body = gzip.compress(bytes(8 << 20))
    head = POST + b"".join(b"Content-Encoding: %s\r\n" % one for one in encodings)
    head += b"Content-Length: %d\r\nConnection: close\r\n" % len(body)
    text = await asyncio.to_thread(ask, path, head + b"\r\n" + body)
    assert text.startswith(b"HTTP/1.1 415 ")
    assert b"; send it plain" in text
    text = await asyncio.to_thread(ask, path, head + b"Expect: 100-continue\r\n\r\n", half_close=True)
    assert text.startswith(b"HTTP/1.1 415 ")


async def test_a_body_that_would_be_refused_is_not_asked_for(path: Path) -> None:
    head = POST + b"Expect: 100-continue\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
    text = await asyncio.to_thread(ask, path, head % (10 << 30), half_close=True)
    assert text.startswith(b"HTTP/1.1 413 ")
    text = await asyncio.to_thread(ask, path, head % len(BODY) + BODY)
    assert text.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 400 ")
    assert b"'none'" in text
    text = await asyncio.to_thread(ask, path, (head % len(BODY)).replace(b"100-continue", b"money"), half_close=True)
    assert text.startswith(b"HTTP/1.1 417 ")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\n" + b"X: y\r\n" * 10_000 + b"\r\n", b"400"),
        (b"GET /" + b"y" * (4 << 20) + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"CONNECT localhost:22 HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n", b"200"),
        (b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(range(256)), b"400"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", b"400"),
        (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", b"400"),
    ],
)
async def test_what_no_client_of_ours_sends_is_refused_or_answered(path: Path, sent: bytes, status: bytes) -> None:
    text = await asyncio.to_thread(ask, path, sent, half_close=True)
    assert text.split(b" ", 2)[1:2] == [status], text[:200]
    await answered(path)


async def test_a_chunk_with_endless_extensions_is_not_waited_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("supervisor.api.requests.BODY_SECONDS", 0.2)
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(POST + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5")

    async def extend() -> None:
        with contextlib.suppress(ConnectionError):
            for _ in itertools.count():
                writer.write(b";a=b" * 4096)
                await writer.drain()
                await answered(path)

    extending = asyncio.create_task(extend())
    status = await asyncio.wait_for(reader.readline(), PATIENCE)
    assert status.split()[1] == b"400"
    extending.cancel()
    writer.close()


async def test_one_too_many_is_told_why_before_he_asks(
    host: Host, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all others wait for an answer, and none of them gives way."""
    ending, going = asyncio.Event(), asyncio.Semaphore(0)

    async def stop(reference: str) -> None:
        going.release()
        await ending.wait()
        raise NotFoundError(f"{reference} is gone")

    monkeypatch.setattr(host, "stop", stop)
    server = await serve(host, run_dir / "s.sock", ConnectionLimits(in_all=16, of_user=12))
    path = server.socket_path
    asked = b"POST /instances/a/stop HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    twelve = [await asyncio.open_unix_connection(str(path)) for _ in range(12)]
    for _, writer in twelve:
        writer.write(asked)
        await asyncio.wait_for(going.acquire(), PATIENCE)
    text = await asyncio.to_thread(ask, path, b"")
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"Retry-After: 1" in head
    assert json.loads(body) == {
        "code": "too_many_connections",
        "message": f"there are 12 connections of uid {os.geteuid()}, the most that one user may have "
        "(max_connections_of_user); close some, or ask again",
        "details": [],
    }
    ending.set()
    for reader, writer in twelve:
        assert (await asyncio.wait_for(reader.read(-1), PATIENCE)).startswith(b"HTTP/1.1 404 ")
        writer.close()
    await answered(path)
    await server.close()


async def test_50_readers_that_never_read_cost_neither_memory_nor_others(path: Path, host: Host) -> None:
    """10,000 events, each told to one that reads: the others' are dropped, and they would be reset."""
    now, text = host.queries.snapshot().supervisor.started_at, "x" * 1000
    memory = psutil.Process().memory_info().rss
    async with SupervisorClient(path) as client:
        with crowd(path) as readers:
            await asyncio.to_thread(readers.join, 50, EVENTS)
            async with contextlib.aclosing(client.events()) as events:
                await anext(events)
                for number in range(EVENT_COUNT):
                    host.events.publish(Activity(at=now, level="info", message=f"{number} {text}"))
                    await until_told(events, f"{number} {text}")
                    if number % 500 == 0:
                        await client.instances()
            assert len(host.events._subscriptions) >= 50
            assert psutil.Process().memory_info().rss - memory < 50 * EVENT_BYTES
            assert readers.left() == 50


async def until_told(events: AsyncGenerator[tuple[str, Event], None], message: str) -> None:
    """Return at this activity, before which others may tell of something else."""
    async with asyncio.timeout(PATIENCE):
        async for _, event in events:
            if isinstance(event, Activity):
                assert event.message == message
                return


EVENT_COUNT = 10_000
EVENT_BYTES = 1 << 20
"""Of each reader, whatever was not read: ten times as much was told."""


@pytest.mark.parametrize(
    ("free", "in_all", "of_user"),
    [(None, 512, 256), (20_000, 512, 256), (600, 300, 225), (226, 113, 85), (40, 20, 15), (10, 16, 12), (-5, 16, 12)],
)
def test_half_of_what_guests_leave_is_theirs(free: int | None, in_all: int, of_user: int) -> None:
    limits = LIMITS.within(free)
    assert (limits.in_all, limits.of_user) == (in_all, of_user)
    assert limits.of_onlookers < in_all
    assert 2 * limits.endless_of_user <= of_user + 1


async def test_who_leaves_his_streams_may_have_others_at_once(host: Host, run_dir: Path) -> None:
    """Though nothing happens, and nothing is written to whom has gone."""
    host._parts.telemetry.stop()
    server = await serve(host, run_dir / "s.sock", ConnectionLimits(in_all=16, of_user=12))
    for _ in range(3):
        with crowd(server.socket_path) as readers:
            await asyncio.to_thread(readers.join, 6, EVENTS)
            for peer in readers.peers:
                assert (await asyncio.to_thread(peer.recv, 12)) == b"HTTP/1.1 200"
            text = await asyncio.to_thread(ask, server.socket_path, EVENTS, half_close=True)
            assert text.startswith(b"HTTP/1.1 503 "), text[:200]
            assert b"has 6 streams and waits, the most that one user may have; end one" in text
    await server.close()
