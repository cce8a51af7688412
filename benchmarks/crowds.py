"""What a request waits for while crowds are at the API's socket, and what memory they take."""

import asyncio
import contextlib
import socket
import statistics
import sys
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Final

from benchmarks.bench import MIB, PATIENCE, Bench
from benchmarks.measurement import Bar, Result, Rounds, Sample
from benchmarks.peaks import forget_peak, peak
from supervisor.settings import SOCKET_NAME

NAME: Final = "crowds"
ALONE: Final = "alone"
MEDIAN, LATE, PEAK = "p50 ms", "p99 ms", "peak MiB"
EVENTS: Final = b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n"
BEGUN: Final = b"GET /instances HTTP/1.1\r\nX: "
ASKED: Final = b"GET /instances HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


class ToldHost:
    """The process of `told_host`."""

    def __init__(self, process: Process, path: Path) -> None:
        self._process = process
        self.path = path
        self.pid = 0

    async def ready(self) -> None:
        """Return when it answers."""
        self.pid = int((await self._line()).removeprefix("ready "))

    async def tell(self, events: int) -> None:
        """Have so many events flow, and return when they have."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"%d\n" % events)
        await self._line()

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)).decode().strip()


async def measure(bench: Bench) -> Result:
    """Measure one request after another, each on a connection of its own."""
    readers, events, slow, idle = bench.sizes.socket_crowds
    unread = f"{readers} readers that never read, {events:,} events"
    many = f"{slow} slow and {idle:,} idle"
    async with _told_host(bench.directory(NAME)) as host:

        async def sample(mode: str) -> Sample:
            with contextlib.ExitStack() as stack:
                if mode == unread:
                    stack.enter_context(_peers(host.path, readers, EVENTS))
                elif mode == many:
                    stack.enter_context(_peers(host.path, idle, b""))
                    stack.enter_context(_peers(host.path, slow, BEGUN))
                return await _asked(host, bench.sizes.requests, events if mode == unread else 0)

        rounds = await Rounds.take(bench.rounds, (ALONE, unread, many), sample)
    return Result(
        NAME,
        "GET /instances of an empty host that may open 256 files: a request's time, and the most memory that it has",
        rounds.rows((ALONE, unread, many)),
        tuple(
            Bar(f"{mode} / {ALONE}, {column}", rounds.ratio(mode, ALONE, column))
            for mode in (unread, many)
            for column in (MEDIAN, LATE, PEAK)
        ),
    )


@contextlib.asynccontextmanager
async def _told_host(directory: Path) -> AsyncIterator[ToldHost]:
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.told_host", str(directory), stdin=PIPE, stdout=PIPE, stderr=log
        )
    host = ToldHost(process, directory / SOCKET_NAME)
    try:
        await host.ready()
        yield host
    finally:
        assert process.stdin is not None
        process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), PATIENCE)
        except BaseException:
            process.kill()
            raise


@contextlib.contextmanager
def _peers(path: Path, count: int, sent: bytes) -> Iterator[None]:
    """Connect so many, which say this and read nothing; some may be hung up on."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.connect(str(path))
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                peer.send(sent)
        yield


async def _asked(host: ToldHost, requests: int, events: int) -> Sample:
    """Ask as often, and for as long as events flow."""
    forget_peak(host.pid)
    telling = asyncio.create_task(host.tell(events))
    seconds: list[float] = []
    while len(seconds) < requests or not telling.done():
        began = time.perf_counter()
        reader, writer = await asyncio.open_unix_connection(str(host.path))
        writer.write(ASKED)
        text = await asyncio.wait_for(reader.read(-1), PATIENCE)
        seconds.append(time.perf_counter() - began)
        writer.close()
        if not text.startswith(b"HTTP/1.1 200 "):
            raise RuntimeError(f"a request was answered by {text[:100]!r}")
    await telling
    hundredths = statistics.quantiles(seconds, n=100, method="inclusive")
    return {MEDIAN: hundredths[49] * 1000, LATE: hundredths[98] * 1000, PEAK: peak(host.pid) / MIB}
