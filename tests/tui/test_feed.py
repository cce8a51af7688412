"""The feed: how long it waits, and what it makes of a supervisor that is away, mute or of another version."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from forktui.client.api import SupervisorClient
from forktui.client.decoding import AT_ONCE, LARGE, decode
from forktui.client.feed import LAST_RETRY_SECONDS, Connection, Feed, Link, retry_seconds
from supervisor.models import Activity, Event, Guest, HostStatistics, InstanceStatistics, Reset, Statistics
from tests.harness.told_hosts import BEGIN, instance, reset

PATIENCE = 30.0
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"


def sent(event: Event | str, number: int) -> bytes:
    """An event as it crosses the socket."""
    data = event if isinstance(event, str) else event.model_dump_json()
    kind = "instance" if isinstance(event, str) else event.type
    return f"id: {number}\nevent: {kind}\ndata: {data}\n\n".encode()


class Told:
    """What a feed has told, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.connections: list[Connection] = []
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    def heard(self, event: Event) -> None:
        """Note an event."""
        self.events.append(event)
        self._wake()

    def changed(self, connection: Connection) -> None:
        """Note a state of the link."""
        self.connections.append(connection)
        self._wake()

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until what was told satisfies the condition."""
        async with asyncio.timeout(PATIENCE), self._changed:
            await self._changed.wait_for(condition)

    def _wake(self) -> None:
        task = asyncio.create_task(self._notify())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@contextlib.asynccontextmanager
async def answering(socket: Path, *answers: bytes) -> AsyncIterator[list[bytes]]:
    """A server that gives each connection the next answer and ends it; the requests are kept."""
    requests: list[bytes] = []
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        requests.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(HEAD + (left.pop(0) if left else b""))
        await writer.drain()
        writer.close()

    server = await asyncio.start_unix_server(answer, socket)
    async with server:
        yield requests


@contextlib.asynccontextmanager
async def following(
    socket: Path, tell: Callable[[Activity], object] = lambda activity: None
) -> AsyncIterator[tuple[Feed, Told]]:
    """A feed that runs on a socket; `tell` is given what becomes of the connection."""
    told = Told()
    async with SupervisorClient(socket) as client:
        feed = Feed(client, told.heard, told.changed, tell=tell)
        task = asyncio.create_task(feed.run())
        try:
            yield feed, told
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def test_waits_double_up_to_a_bound() -> None:
    assert [retry_seconds(attempt) for attempt in (1, 2, 3, 4)] == [0.25, 0.5, 1.0, 2.0]
    assert retry_seconds(10_000) == LAST_RETRY_SECONDS


async def test_a_stream_that_ends_is_resumed_after_its_last_event(run_dir: Path) -> None:
    socket = run_dir / "s.sock"
    first, second = reset([instance("a")]), reset([instance("b")])
    async with answering(socket, sent(first, 41), sent(second, 42)) as requests, following(socket) as (_, told):
        await told.until(lambda: len(told.events) == 2)
    assert b"Last-Event-ID" not in requests[0]
    assert b"Last-Event-ID: 41\r\n" in requests[1]
    links = [connection.link for connection in told.connections[:3]]
    assert links == [Link.LIVE, Link.LOST, Link.LIVE]
    lost = told.connections[1]
    assert lost.attempts == 1
    assert lost.retry_at - lost.heard_at >= 0.25


async def test_nobody_there_is_told_with_the_time_since_then(run_dir: Path) -> None:
    async with following(run_dir / "s.sock") as (feed, told):
        await told.until(lambda: feed.connection.attempts == 3)
        attempts = [connection for connection in told.connections if connection.link is Link.LOST]
        assert len({connection.heard_at for connection in attempts}) == 1
        assert "no supervisor listens there" in attempts[0].reason


async def test_the_operator_can_end_the_wait(run_dir: Path) -> None:
    socket = run_dir / "s.sock"
    async with following(socket) as (feed, told):
        await told.until(lambda: feed.connection.attempts >= 4)
        async with answering(socket, sent(reset([]), 1)):
            feed.retry_now()
            async with asyncio.timeout(retry_seconds(4)):
                await told.until(lambda: told.events)


async def test_large_events_are_what_they_are_and_others_have_their_turn_while_counters_are_read() -> None:
    host = [instance(f"i{number}", state_error="x" * 100) for number in range(1200)]
    counters = [InstanceStatistics(id=one.id, faults=7, guest=Guest(passes=3)) for one in host] * 2
    whole = reset(host, counters)
    statistics = Statistics(at=BEGIN, clock=1.0, instances=tuple(counters), host=HostStatistics())
    turns = 0

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    for event in (whole, statistics):
        data = event.model_dump_json()
        assert len(data) > LARGE
        counting, turns = asyncio.create_task(count_turns()), 0
        assert await decode(data) == event
        counting.cancel()
    assert turns > len(counters) // AT_ONCE


BEGUN = '{"type":"statistics","instances":[' + '{"id":1},' * LARGE


@pytest.mark.parametrize(
    "data",
    [BEGUN, BEGUN + '{"id":1}]}'],
    ids=["no JSON", "no statistics"],
)
async def test_a_large_event_that_is_not_understood_is_refused_as_a_small_one_is(data: str) -> None:
    with pytest.raises(ValidationError):
        await decode(data)


async def test_an_event_that_is_not_understood_starts_over_with_a_reset(run_dir: Path) -> None:
    socket = run_dir / "s.sock"
    garbage = sent(reset([]), 7) + sent('{"type":"instance","instance":{"id":3}}', 8)
    async with answering(socket, garbage, sent(reset([instance("a")]), 9)) as requests, following(socket) as (_, told):
        await told.until(lambda: len(told.events) == 2)
    assert any("of another version" in connection.reason for connection in told.connections)
    assert b"Last-Event-ID" not in requests[1]
    assert isinstance(told.events[1], Reset)
