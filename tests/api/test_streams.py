"""The streams of the API: the host's events, the logs, and how both end."""

import asyncio
import contextlib
import itertools
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import TypeVar

import aiohttp
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.client.server_sent_events import Parser, ServerSentEvent
from supervisor.api import log_file, streaming
from supervisor.api.log_file import LogFile
from supervisor.api.requests import WAIT_SECONDS, WaitQuery, seconds_of, wait_bound
from supervisor.api.server import serve
from supervisor.host.host import Host
from supervisor.models import Activity, CreateRequest, Event, InstanceChanged, InstanceDeleted, Reset, State
from supervisor.settings import Settings
from tests.harness import waiting
from tests.harness.refusals import refused
from tests.harness.supervisor_process import PATIENCE, Home, supervisor, walking_source

Item = TypeVar("Item")
Opened = tuple[Host, SupervisorClient]


@pytest.fixture
async def opened(run_dir: Path) -> AsyncIterator[Opened]:
    """Return a host that is served by this process, and a client of it."""
    settings = Settings(data_dir=run_dir / "data", run_dir=run_dir, hypervisor="embedded")
    settings.data_dir.mkdir()
    host = await Host.open(settings)
    server = await serve(host, settings.socket_path)
    async with SupervisorClient(settings.socket_path) as client:
        yield host, client
        for instance in host.queries.instances():
            await host.delete(instance.id)
        await server.close()
    await host.close()


async def soon(stream: AsyncGenerator[Item, None]) -> Item:
    """Return the stream's next item."""
    return await asyncio.wait_for(anext(stream), PATIENCE)


async def text_of(path: Path, request: str, enough: bytes) -> bytes:
    """Return the raw answer to a GET up to the point where it has `enough` in it."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(request.encode())
    got = b""
    async with asyncio.timeout(PATIENCE):
        while enough not in got and (chunk := await reader.read(65536)):
            got += chunk
    writer.close()
    return got


async def test_events_are_server_sent_events(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wire: retry, id, event and data lines, and a comment where nothing happens."""
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.05)
    _, client = opened
    got = await text_of(client.socket, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n", b": still here\n\n")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"Content-Type: text/event-stream" in head
    assert b"retry: 1000\n\n" in body
    assert b"\nevent: reset\ndata: {" in body


async def test_events_tell_a_life_from_reset_to_deletion(opened: Opened) -> None:
    """A client that follows knows what a client that asks knows."""
    _, client = opened
    async with contextlib.aclosing(client.events()) as events:
        _, first = await soon(events)
        assert isinstance(first, Reset)
        assert first.snapshot.instances == ()
        assert first.snapshot.supervisor.writable
        made = await client.create(CreateRequest(name="seen", image="pagewalker"))
        await until(events, lambda event: isinstance(event, InstanceChanged) and event.instance.state is State.RUNNING)
        await client.delete(made.id)
        _, gone = await until(events, lambda event: isinstance(event, InstanceDeleted))
        assert gone == InstanceDeleted(id=made.id)


async def until(events: AsyncGenerator[tuple[str, Event], None], wanted: object) -> tuple[str, Event]:
    """Return the first event that is wanted, with its id."""
    assert callable(wanted)
    async with asyncio.timeout(PATIENCE):
        async for event_id, event in events:
            if wanted(event):
                return event_id, event
    raise AssertionError("the events ended")


async def test_a_lost_connection_is_resumed_where_it_was(opened: Opened) -> None:
    """Last-Event-ID brings what was missed; an id of nobody's brings a reset."""
    host, client = opened
    async with contextlib.aclosing(client.events()) as events:
        last, _ = await soon(events)
    missed = [
        Activity(at=host.queries.snapshot().supervisor.started_at, level="info", message=str(n)) for n in range(5)
    ]
    for event in missed:
        host.events.publish(event)
    async with contextlib.aclosing(client.events(last)) as events:
        got = [await until(events, lambda event: isinstance(event, Activity)) for _ in missed]
    assert [event for _, event in got] == missed
    async with contextlib.aclosing(client.events("0-0")) as events:
        assert isinstance((await soon(events))[1], Reset)


async def test_a_subscriber_that_does_not_read_is_reset_and_delays_nobody(opened: Opened) -> None:
    """Thousands of events for one that sleeps: another gets each, and the sleeper one snapshot."""
    host, client = opened
    now = host.queries.snapshot().supervisor.started_at
    count = 3 * 1024
    async with contextlib.aclosing(client.events()) as awake:
        await soon(awake)
        reader, writer = await asyncio.open_unix_connection(str(client.socket), limit=1024)
        writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"event: reset"), PATIENCE)
        for number in range(count):
            host.events.publish(Activity(at=now, level="info", message=f"{number} " + "x" * 1000))
            await until(awake, lambda event: isinstance(event, Activity))
        host.events.publish(Activity(at=now, level="info", message="the last"))
        got = b""
        async with asyncio.timeout(PATIENCE):
            while b"the last" not in got[-65536:] and b"event: reset" not in got[-4096:]:
                got += await reader.read(65536)
        assert got.count(b"event: activity") < count
        assert b"event: reset" in got
        writer.close()


async def test_silence_is_noticed(embedded: Home) -> None:
    """A supervisor that hangs sends no heartbeat; its client does not wait for ever."""
    async with supervisor(embedded) as running, contextlib.aclosing(running.client.events(silence=0.3)) as events:
        await soon(events)
        running.process.send_signal(signal.SIGSTOP)
        try:
            with pytest.raises(
                SupervisorUnreachableError, match=r"has not answered for .*: it is stopped; `kill -CONT \d+`"
            ):
                async with asyncio.timeout(PATIENCE):
                    async for _ in events:
                        pass
        finally:
            running.process.send_signal(signal.SIGCONT)


async def test_open_streams_and_waits_do_not_hold_a_stopping_supervisor(embedded: Home) -> None:
    """Events read and unread, a followed log, a wait, half a request: all end, and the socket is gone."""
    async with supervisor(embedded) as running:
        client = running.client
        await client.create(CreateRequest(name="seen", image="pagewalker"))
        events, log = client.events(), client.follow_log("seen")
        await soon(events)
        await soon(log)
        waiting = asyncio.ensure_future(client.wait("seen", State.STANDBY, 600))
        unread = await asyncio.open_unix_connection(str(embedded.socket))
        unread[1].write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(unread[0].readuntil(b"event: reset"), PATIENCE)
        half = await asyncio.open_unix_connection(str(embedded.socket))
        half[1].write(b"POST /instances HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        await client.health()

        began = time.monotonic()
        assert await running.end() == 0
        assert time.monotonic() - began < 5
        assert not embedded.socket.exists()
        with pytest.raises(SupervisorUnreachableError, match="ended"):
            await until(events, lambda event: False)
        async with asyncio.timeout(PATIENCE):
            async for _ in log:
                pass
        with pytest.raises(SupervisorUnreachableError):
            await waiting
        for _, writer in (unread, half):
            writer.close()
    async with supervisor(embedded) as again:
        await again.client.delete("seen")


async def test_a_log_is_tailed_and_followed(opened: Opened) -> None:
    """Lines that end later come later; the stream ends with the instance."""
    host, client = opened
    made = await client.create(CreateRequest(name="logged", image="pagewalker", cmd=("passes=1",)))
    # Or it logs what is asked of it yet.
    await client.stop("logged")
    path = host.queries.log_file(made.id, "vmm")
    path.write_bytes(b"one\ntwo\r\n\xff\x1b[2J\nunfin")
    assert await client.logs("logged", 2, "vmm") == ["\ufffd\x1b[2J", "unfin"]
    assert await client.logs("logged", 0, "vmm") == []
    assert await client.logs("logged", 100, "vmm") == ["one", "two", "\ufffd\x1b[2J", "unfin"]
    async with contextlib.aclosing(client.follow_log("logged", 2, "vmm")) as lines:
        assert [await soon(lines), await soon(lines)] == ["two", "\ufffd\x1b[2J"]
        with path.open("ab") as log:
            log.write(b"ished\n\nlast\n")
        assert [await soon(lines), await soon(lines), await soon(lines)] == ["unfinished", "", "last"]
        path.write_bytes(b"anew\n")
        assert await soon(lines) == "anew"
        await client.delete("logged")
        with pytest.raises(StopAsyncIteration):
            await soon(lines)


async def test_a_log_stream_has_data_lines_only(opened: Opened) -> None:
    """hypeman's SDK reads each event's data as a JSON string, and an id line would make it resume."""
    host, client = opened
    made = await client.create(CreateRequest(name="logged", image="pagewalker"))
    await client.stop("logged")
    host.queries.log_file(made.id, "vmm").write_bytes(b'id: 7\n"quoted"\n')
    transport = httpx.AsyncHTTPTransport(uds=str(client.socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        answer = await http.get("/instances/logged/logs", params={"source": "vmm"})
    assert answer.headers["Content-Type"] == "text/event-stream"
    assert answer.text == 'data: "id: 7"\n\ndata: "\\"quoted\\""\n\n'


async def test_followers_are_bounded(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each takes a thread; one that is refused is told so, and one that went leaves its place."""
    monkeypatch.setattr(streaming, "FOLLOWER_LIMIT", 1)
    host, client = opened
    made = await client.create(CreateRequest(name="logged", image="pagewalker"))
    await client.stop("logged")
    host.queries.log_file(made.id, "vmm").write_bytes(b"one\n")
    async with contextlib.aclosing(client.follow_log("logged", source="vmm")) as lines:
        await soon(lines)
        error = await refused(soon(client.follow_log("logged", source="vmm")))
        assert (error.status, error.code) == (409, "insufficient_resources")
        assert "followed already" in error.message
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(ApiError):
                assert await soon(client.follow_log("logged", source="vmm")) == "one"
                break


PIECES = st.lists(st.one_of(st.binary(max_size=30), st.sampled_from([b"\n", b"\r\n", b"a\nb\n"])), max_size=12)


@given(pieces=PIECES, count=st.integers(0, 8), first=st.integers(0, 12))
def test_a_log_read_in_parts_is_the_log(
    pieces: list[bytes], count: int, first: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The tail, what is added, and what is unfinished make up the file's lines, wherever it was cut."""
    path = tmp_path_factory.getbasetemp() / "log"
    path.write_bytes(b"".join(pieces[:first]))
    log = LogFile(path)
    got = log.tail(count)
    for piece in pieces[first:]:
        with path.open("ab") as file:
            file.write(piece)
        while lines := log.more():
            got += lines
    *whole, rest = (line.removesuffix(b"\r").decode("utf-8", "replace") for line in b"".join(pieces).split(b"\n"))
    skipped = max(0, b"".join(pieces[:first]).count(b"\n") - count)
    assert got == whole[skipped:]
    assert log.unfinished() == rest


def test_a_long_log_is_read_from_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are found however far back they are, up to a bound; one without an end is cut in pieces."""
    path = tmp_path / "log"
    path.write_bytes(b"".join(b"%d\n" % number for number in range(200_000)))
    assert LogFile(path).tail(3) == ["199997", "199998", "199999"]
    assert LogFile(path).tail(150_000) == [str(number) for number in range(50_000, 200_000)]
    monkeypatch.setattr(log_file, "TAIL_LIMIT", 12)
    assert LogFile(path).tail(3) == ["9998", "199999"]
    path.write_bytes(b"x" * (3 * log_file.LINE_LIMIT) + b"\n")
    log = LogFile(path)
    assert [len(line) for line in log.more()] == [log_file.LINE_LIMIT] * 3
    assert LogFile(tmp_path / "none").tail(3) == []
    assert LogFile(tmp_path / "none").more() == []


@given(
    events=st.lists(st.tuples(st.sampled_from(["", "a-1"]), st.sampled_from(["message", "reset"]), st.text())),
    end=st.sampled_from(["\n", "\r", "\r\n"]),
    cuts=st.lists(st.integers(0, 400)),
)
def test_events_are_parsed_whatever_the_pieces(events: list[tuple[str, str, str]], end: str, cuts: list[int]) -> None:
    """Every line end, comments, many data lines and bytes cut in the middle of a character."""
    text, expected, last = "", [], ""
    for event_id, kind, data in events:
        lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
        text += f": comment{end}" + (f"id: {event_id}{end}" if event_id else "") + f"event:{kind}{end}"
        text += "".join(f"data: {line}{end}" for line in lines) + f"unknown: x{end}{end}"
        last = event_id or last
        expected.append(ServerSentEvent(last, kind, "\n".join(lines)))
    raw = text.encode("utf-8", "replace")
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    parser = Parser(1 << 30)
    got = [event for start, stop in itertools.pairwise(edges) for event in parser.feed(raw[start:stop])]
    assert got == expected


def test_a_large_event_is_parsed_in_linear_time() -> None:
    """A snapshot of a big host is one line of megabytes, which arrives in small pieces."""
    parser = Parser(1 << 30)
    began = time.process_time()
    for number in range(50_000):
        assert parser.feed(b"data: " if number == 0 else b"x" * 200) == []
    (event,) = parser.feed(b"\n\n")
    assert len(event.data) == 49_999 * 200
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1m30s", 90),
        ("1h", 3600),
        ("0", 0),
        ("0s", 0),
        (".5s", 0.5),
        ("1.5s", 1.5),
        ("7us7µs7μs", 21e-6),
    ],
)
def test_durations_are_gos(text: str, seconds: float) -> None:
    """hypeman's are written by Go."""
    assert float(str(seconds_of(text))) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "s", "-1s", "1s ", "1 s", "1d", "1e3s", "NaN", "infs", "1s1", "٣s", "9" * 99 + "s"]
)
def test_other_durations_are_refused(text: str) -> None:
    """Go refuses them as well, or they mean no time to wait."""
    with pytest.raises(ValueError, match="500ms"):
        seconds_of(text)


@pytest.mark.parametrize(
    ("asked", "patience", "bound"),
    [
        (1, None, 1),
        (1, "6", 1),
        (300, "6", 5),
        (300, "60.0", 50),
        *((300, unsaid, WAIT_SECONDS) for unsaid in (None, "None", "nan", "inf", "-1")),
    ],
)
def test_a_wait_is_bounded_by_its_client(asked: float, patience: str | None, bound: float) -> None:
    """By the read timeout that it sends along, or by what SDKs have by default."""
    headers = {"X-Stainless-Read-Timeout": patience} if patience else {}
    assert wait_bound(WaitQuery(state=State.RUNNING, timeout=asked), headers) == bound


@pytest.mark.parametrize("follow", ["false", "true"])
async def test_what_is_no_log_is_told_by_an_answer(embedded: Home, follow: str) -> None:
    async with supervisor(embedded) as running:
        made = await walking_source(running.client)
        await running.client.stop("source")
        console = embedded.data / "instances" / made.id / "console.log"
        console.unlink()
        console.symlink_to("/etc/passwd")
        connector = aiohttp.UnixConnector(str(embedded.socket))
        async with (
            aiohttp.ClientSession("http://x", connector=connector) as session,
            session.get(f"/instances/source/logs?follow={follow}") as answer,
        ):
            assert answer.status == 500
            told = await answer.json()
        assert told["code"] == "storage_failed"
        assert "console.log: it is a symbolic link, and no file: remove it" in told["message"]
        assert "Traceback" not in running.log.read_text()
        await running.client.delete("source")


async def test_a_wait_ends_with_whoever_waited(opened: Opened) -> None:
    _, client = opened
    made = await client.create(CreateRequest(name="web", image="pagewalker", readiness="console:never"))
    await client.wait(made.id, State.RUNNING, PATIENCE)

    def waits() -> int:
        return sum("Queries.wait" in repr(task.get_coro()) for task in asyncio.all_tasks())

    tasks = [
        asyncio.create_task(client.wait(made.id, State.RUNNING, PATIENCE, ready=True)),
        asyncio.create_task(client.wait(made.id, State.RUNNING, PATIENCE, readiness="console:nor this")),
    ]
    await waiting.until(lambda: waits() == 2)
    for task in tasks:
        task.cancel()
    await waiting.until(lambda: waits() == 0)
