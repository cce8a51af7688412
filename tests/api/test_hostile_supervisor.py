"""Whatever answers at a supervisor's socket, a client reads of it only so much, and says in a line what was wrong."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from forktui.client import transport
from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from tests.harness.supervisor_process import PATIENCE

LIMIT = 1 << 20

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
CHUNK = b"10000\r\n" + b"x" * 65536 + b"\r\n"


@pytest.fixture(autouse=True)
def bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the bound be one that a test is soon through with."""
    monkeypatch.setattr(transport, "ANSWER_BYTES", LIMIT)


@asynccontextmanager
async def client_of(
    path: Path, answer: Callable[[], Iterable[bytes]]
) -> AsyncIterator[tuple[SupervisorClient, list[int]]]:
    """Yield a client of what gives each request this answer, and how many bytes of it were taken."""
    taken = [0]

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await reader.readuntil(b"\r\n\r\n")
            for piece in answer():
                writer.write(piece)
                await writer.drain()
                taken[0] += len(piece)
        writer.close()

    async with await asyncio.start_unix_server(serve, path), SupervisorClient(path) as client:
        yield client, taken


@pytest.mark.parametrize(
    ("status", "head", "rest"),
    [
        (OK, b"Content-Length: 99999999999\r\n\r\n", b"x" * 65536),
        (OK, CHUNKED, CHUNK),
        (b"HTTP/1.1 409 Conflict\r\n", CHUNKED, CHUNK),
        (OK, b"\r\n", b"x" * 65536),
    ],
    ids=["a body", "chunks", "a refusal", "a body up to its end"],
)
async def test_an_answer_without_an_end_is_read_no_further(
    run_dir: Path, status: bytes, head: bytes, rest: bytes
) -> None:
    def answer() -> Iterable[bytes]:
        return itertools.chain((status + head,), itertools.repeat(rest))

    async with client_of(run_dir / "s", answer) as (client, taken), asyncio.timeout(PATIENCE):
        with pytest.raises(SupervisorUnreachableError, match=r"more than 1 MiB") as refused:
            await client.instances()
    assert "\n" not in str(refused.value)
    assert taken[0] < 16 * LIMIT


@pytest.mark.parametrize("piece", [b"data: " + b"x" * 65536, b"data: x\n" * 8192], ids=["a line", "an event"])
async def test_an_event_without_an_end_is_read_no_further(run_dir: Path, piece: bytes) -> None:
    def answer() -> Iterable[bytes]:
        yield OK + b"Content-Type: text/event-stream\r\n\r\n"
        yield from itertools.repeat(piece)

    async with client_of(run_dir / "s", answer) as (client, taken), asyncio.timeout(PATIENCE):
        with pytest.raises(SupervisorUnreachableError, match=r"more than 1 MiB"):
            await client.logs("vm")
    assert taken[0] < 16 * LIMIT


async def test_a_compressed_answer_is_not_unpacked(run_dir: Path) -> None:
    def answer() -> Iterable[bytes]:
        body = b"\x1f\x8b" + b"\0" * 98
        yield OK + b"Content-Encoding: gzip\r\nContent-Length: 100\r\n\r\n" + body

    async with client_of(run_dir / "s", answer) as (client, _):
        with pytest.raises((SupervisorUnreachableError, ApiError), match=r"not understood"):
            await client.instances()
