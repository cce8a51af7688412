"""A VMM that answers what no VMM does: its own requests fail in bounded time and memory, and in words of one line."""

import asyncio
import itertools
import json
import os
import re
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from supervisor.errors import VmmError
from supervisor.vmm import api_client
from supervisor.vmm.api_client import ANSWER_BYTES, ApiClient
from tests.harness.supervisor_process import PATIENCE

MEMORY = 16 * ANSWER_BYTES
"""Bytes; what is read of one answer, and what parsing makes of it."""

OK = b"HTTP/1.1 200 OK\r\n"
ENDLESS: dict[str, Callable[[], Iterable[bytes]]] = {
    "a body": lambda: itertools.chain((OK + b"Content-Length: 99999999999\r\n\r\n",), itertools.repeat(b"x" * 65536)),
    "chunks": lambda: itertools.chain(
        (OK + b"Transfer-Encoding: chunked\r\n\r\n",), itertools.repeat(b"1000\r\n" + b"x" * 4096 + b"\r\n")
    ),
    "chunks of a byte": lambda: itertools.chain(
        (OK + b"Transfer-Encoding: chunked\r\n\r\n",), itertools.repeat(b"1\r\nx\r\n" * 999)
    ),
    "a chunk's extension": lambda: itertools.chain(
        (OK + b"Transfer-Encoding: chunked\r\n\r\n1;",), itertools.repeat(b"e" * 65536)
    ),
    "trailers": lambda: itertools.chain(
        (OK + b"Transfer-Encoding: chunked\r\n\r\n0\r\n",), itertools.repeat(b"t: x\r\n" * 999)
    ),
    "headers": lambda: itertools.chain((OK,), (b"h%d: x\r\n" % number for number in itertools.count())),
    "one header": lambda: itertools.chain((OK + b"h: ",), itertools.repeat(b"x" * 65536)),
    "a status line": lambda: itertools.chain((b"HTTP/1.1 200 ",), itertools.repeat(b"x" * 65536)),
    "informational answers": lambda: itertools.repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 999),
    "empty lines": lambda: itertools.repeat(b"\r\n" * 9999),
    "a body up to its end": lambda: itertools.chain((OK + b"\r\n",), itertools.repeat(b"x" * 65536)),
}


@asynccontextmanager
async def client_of(
    path: Path, serve: Callable[[asyncio.StreamReader, asyncio.StreamWriter], "asyncio.Future[None]"]
) -> AsyncIterator[ApiClient]:
    """Yield a client of a peer that serves each connection so."""
    server = await asyncio.start_unix_server(serve, path)

    async def why_gone() -> str:
        return "closed the connection"

    client = ApiClient(path, "web-1", os.getpid(), why_gone, lambda: True)
    try:
        yield client
    finally:
        await client.close()
        server.close()
        await server.wait_closed()


@pytest.mark.parametrize("what", ENDLESS)
async def test_an_answer_without_an_end_is_read_no_further(run_dir: Path, what: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        with suppress(OSError):
            for piece in ENDLESS[what]():
                writer.write(piece)
                await writer.drain()
        writer.close()

    async with client_of(run_dir / "s", serve) as client:  # type: ignore[arg-type]
        tracemalloc.start()
        try:
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(VmmError, match=r"^web-1: PATCH /vm was (answered|not answered)") as refused:
                    await client.pause()
            assert "\n" not in refused.value.message
            assert tracemalloc.get_traced_memory()[1] < MEMORY
        finally:
            tracemalloc.stop()


async def test_what_comes_unasked_is_not_kept(run_dir: Path) -> None:
    """The connection stays open between requests: what a VMM writes there meanwhile is nobody's answer."""
    written = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        with suppress(OSError):
            while True:
                writer.write(b"HTTP/1.1 204 No Content\r\n\r\n" * 999)
                await writer.drain()
                written += 1
        ended.set()

    ended = asyncio.Event()
    async with client_of(run_dir / "s", serve) as client:  # type: ignore[arg-type]
        await client.pause()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()
        assert not client.connected
    assert written * 999 * 27 < MEMORY


async def test_an_answer_that_trickles_is_waited_for_no_longer_than_any(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api_client, "QUICK", 0.3)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK + b"Content-Length: 1000000\r\n\r\n")
        with suppress(OSError):
            while not writer.is_closing():
                writer.write(b"x")
                await writer.drain()
                await asyncio.wait((asyncio.ensure_future(reader.read()),), timeout=0.02)
        writer.close()

    async with client_of(run_dir / "s", serve) as client:  # type: ignore[arg-type]
        with pytest.raises(VmmError, match=r"did not answer GET / within"):
            await client.describe()


@asynccontextmanager
async def answering(path: Path, head: str, body: bytes) -> AsyncIterator[ApiClient]:
    """Yield a client of a peer that gives every request this answer."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(f"HTTP/1.1 {head}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
                await writer.drain()
        writer.close()

    async with client_of(path, serve) as client:  # type: ignore[arg-type]
        yield client


HOSTILE = {
    "controls": "\x1b]0;owned\x07\x1b[2J\x00\x7f\x9b31m",
    "line ends": "gone\n2026-01-01 INFO forged\r\u2028\u2029\x85\x0b\x0c",
    "bidi controls": "\u202e\u2066txt.exe",
    "a lone surrogate": "\udcff",
    "length": "x" * 900_000,
}


@pytest.mark.parametrize("what", HOSTILE)
@pytest.mark.parametrize("as_json", [True, False], ids=["fault_message", "plain"])
async def test_a_refusal_is_told_bounded_and_escaped(run_dir: Path, what: str, as_json: bool) -> None:
    words = HOSTILE[what]
    body = json.dumps({"fault_message": words}).encode() if as_json else words.encode(errors="surrogateescape")
    async with answering(run_dir / "s", "400 Bad Request", body) as client:
        with pytest.raises(VmmError) as refused:
            await client.pause()
    assert refused.value.message.isprintable()
    assert refused.value.message.startswith("web-1: the VMM refused PATCH /vm: ")
    assert len(refused.value.message) < 2000
    refused.value.message.encode()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[" * 100_000,
        b'{"firecracker_version": "%s"}' % (b"1" * 900_000),
        b'{"firecracker_version": "1.12.1\\u001b[2J"}',
        b'{"firecracker_version": "1.12.1\\n"}',
        b'{"firecracker_version": ["1.12.1"]}',
        b'{"firecracker_version": NaN}',
        b'{"firecracker_version": ' + b"9" * 500_000 + b"}",
        b'{"firecracker_version": ""}',
    ],
    ids=["nothing", "deep", "long", "controls", "a line end", "a list", "NaN", "a huge number", "empty"],
)
async def test_a_version_that_is_none_is_refused(run_dir: Path, body: bytes) -> None:
    async with answering(run_dir / "s", "200 OK", body) as client:
        with pytest.raises(VmmError, match=r"^web-1: GET /version was not answered by a VMM: ") as refused:
            await client.version()
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 2000


@pytest.mark.parametrize("field", ["id", "state", "vmm_version"])
@pytest.mark.parametrize("value", [["x"], {"a": 1}, None, 1.5, "\x1b[2J", "x" * 900_000])
async def test_a_description_is_of_plain_words(run_dir: Path, field: str, value: object) -> None:
    body = {"id": "anonymous-instance", "state": "Running", "vmm_version": "1.12.1", field: value}
    async with answering(run_dir / "s", "200 OK", json.dumps(body).encode()) as client:
        with pytest.raises(VmmError, match=re.escape("web-1: GET / was answered by what is no VMM: ")) as refused:
            await client.describe()
    assert refused.value.message.isprintable()
    assert len(refused.value.message) < 2000


async def test_an_answer_leads_nowhere_else(run_dir: Path) -> None:
    asked = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            while True:
                asked.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(b"HTTP/1.1 302 Found\r\nLocation: /snapshot/create\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with client_of(run_dir / "s", serve) as client:  # type: ignore[arg-type]
        with pytest.raises(VmmError, match=r"the VMM refused GET /: "):
            await client.describe()
    assert len(asked) == 1


async def test_an_upgrade_is_no_success(run_dir: Path) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n")
        writer.close()

    async with client_of(run_dir / "s", serve) as client:  # type: ignore[arg-type]
        with pytest.raises(VmmError, match="PATCH /vm"):
            await client.resume()
