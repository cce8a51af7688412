"""A supervisor that does not answer: stopped, deaf, or with a full queue; each is told, and nothing hangs."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from forktui.client import api, connector, silence, transport
from forktui.client.api import SupervisorClient, SupervisorUnreachableError
from forktui.client.feed import Connection, Feed, Link
from forktui.client.silence import Patience
from supervisor.models import CreateRequest
from tests.cli.conftest import Forktui
from tests.harness.programs import DONE, FAILED
from tests.harness.supervisor_process import PATIENCE, Home, RunningSupervisor, supervisor, until

READING = (("ls",), ("ls", "--json"), ("images",), ("logs", "vm"), ("delete", "vm", "--dry-run"), ("cancel", "vm"))
VERB = Patience(1.0, None)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait tenths of a second for what is waited for seconds."""
    for name, seconds in (("ASK_SECONDS", 0.3), ("ANSWER_SECONDS", 0.3)):
        monkeypatch.setattr(silence, name, seconds)
    for module in (transport, api):
        monkeypatch.setattr(module, "ANSWER_SECONDS", 0.3)
    monkeypatch.setattr(api, "ASK_SECONDS", 0.3)
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(transport, "VERB", VERB)
    monkeypatch.setattr(connector, "_SLICE_SECONDS", 0.1)


@contextlib.contextmanager
def frozen(running: RunningSupervisor) -> Iterator[int]:
    """Stop a supervisor while the context lasts."""
    running.process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, running.process.pid, os.WSTOPPED | os.WNOWAIT)
    try:
        yield running.process.pid
    finally:
        running.process.send_signal(signal.SIGCONT)


async def test_what_reads_gives_up_with_a_line(embedded: Home, forktui: Forktui, impatient: None) -> None:
    async with supervisor(embedded) as running:
        with frozen(running) as pid:
            for command in READING:
                code, output, errors = await forktui(*command)
                assert (code, output) == (FAILED, ""), command
                said = f"the supervisor (pid {pid}) has not answered for 0 s: it is stopped; `kill -CONT {pid}` lets"
                assert said in errors
                assert errors.count("\n") == 1
        assert (await forktui("ls"))[0] == DONE


async def test_a_verb_says_that_it_waits_and_is_done_when_the_supervisor_goes_on(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        with frozen(running) as pid:
            command = ("-m", "forktui", "create", "vm", "--size", "64MB", "--cmd", "hot_mib=4")
            making = await asyncio.create_subprocess_exec(
                sys.executable, *command, "--socket", str(embedded.socket), stdout=PIPE, stderr=PIPE
            )
            assert making.stderr is not None
            async with asyncio.timeout(PATIENCE):
                told = await making.stderr.readline()
            assert f"(pid {pid}) has not answered for 5 s: it is stopped".encode() in told
            assert told.endswith(b"; it is waited for\n")
        output, errors = await making.communicate()
        assert (making.returncode, output, errors) == (DONE, b"vm Initializing\n", b"")
        await running.client.delete("vm")


async def test_a_verb_that_is_waited_for_no_more_is_said_to_go_on(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        with frozen(running):
            command = ("-m", "forktui", "create", "vm", "--size", "64MB", "--cmd", "hot_mib=4")
            making = await asyncio.create_subprocess_exec(
                sys.executable, *command, "--socket", str(embedded.socket), stderr=PIPE
            )
            assert making.stderr is not None
            async with asyncio.timeout(PATIENCE):
                await making.stderr.readline()
                making.send_signal(signal.SIGINT)
                _, errors = await making.communicate()
            said, interrupted = errors.decode().splitlines()
            assert said.endswith("may be done yet; forktui ls shows it, forktui cancel ends it")
            assert (making.returncode, interrupted) == (FAILED, "forktui: interrupted")
        await until(lambda host: [one.name for one in host.instances] == ["vm"], running.client)
        await running.client.delete("vm")


async def test_a_verb_does_not_wait_for_ever(embedded: Home, forktui: Forktui, impatient: None) -> None:
    async with supervisor(embedded) as running:
        with frozen(running):
            code, output, errors = await forktui("create", "vm", "--size", "64MB")
            assert (code, output) == (FAILED, "")
            waits, gave_up = errors.splitlines()
            assert waits.endswith("; it is waited for")
            assert gave_up.endswith("; what was asked for may be done yet")


async def test_a_verb_that_takes_long_is_not_given_up_while_the_supervisor_answers(
    run_dir: Path, impatient: None
) -> None:
    told: list[str] = []
    async with (
        answering_only(run_dir / "s.sock", b"/health") as asked,
        SupervisorClient(run_dir / "s.sock", tell=told.append) as client,
    ):
        making = asyncio.create_task(client.create(CreateRequest(name="vm", image="pagewalker")))
        async with asyncio.timeout(PATIENCE):
            assert [await asked.get() for _ in range(6)] == [b"/instances", *[b"/health"] * 5]
        assert not making.done()
        assert told == []
        making.cancel()
        with pytest.raises(asyncio.CancelledError):
            await making


async def test_a_read_is_given_up_though_the_supervisor_answers_others(
    run_dir: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "READ", Patience(0.0, 1.0))
    async with answering_only(run_dir / "s.sock", b"/health"), SupervisorClient(run_dir / "s.sock") as client:
        with pytest.raises(SupervisorUnreachableError, match="nothing came for 1 s, though the supervisor answers"):
            await client.instances()


@pytest.mark.parametrize("begin", [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n[", b"HTTP/1.1 404 No\r\n"])
async def test_a_peer_that_does_not_go_on_is_given_up(run_dir: Path, impatient: None, begin: bytes) -> None:
    async with answering_only(run_dir / "s.sock", b"", begin), SupervisorClient(run_dir / "s.sock") as client:
        for read in (client.instances, client.health, client.snapshot, lambda: client.logs("vm")):
            async with asyncio.timeout(PATIENCE):
                with pytest.raises(SupervisorUnreachableError, match=r"\(pid \d+\) has not answered for \d+ s"):
                    await read()


@contextlib.contextmanager
def full_queue(path: Path) -> Iterator[socket.socket]:
    """Listen at a path with a queue of one connection, which is there."""
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as waiting:
        listener.bind(str(path))
        listener.listen(0)
        waiting.connect(str(path))
        yield listener


async def test_a_full_queue_is_given_up(run_dir: Path, impatient: None) -> None:
    with full_queue(run_dir / "s.sock"):
        async with asyncio.timeout(PATIENCE), SupervisorClient(run_dir / "s.sock") as client:
            with pytest.raises(SupervisorUnreachableError, match="has not answered for"):
                await client.instances()


async def test_room_in_a_full_queue_is_waited_for(run_dir: Path) -> None:
    with full_queue(run_dir / "s.sock") as listener, contextlib.ExitStack() as served:
        async with asyncio.timeout(PATIENCE), SupervisorClient(run_dir / "s.sock") as client:
            reading = asyncio.create_task(client.instances())
            for _ in range(2):
                peer = served.enter_context((await asyncio.to_thread(listener.accept))[0])
                peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
            assert await reading == []


async def test_the_age_counts_from_the_last_sign_of_life_and_all_goes_on(embedded: Home, impatient: None) -> None:
    changes: asyncio.Queue[Connection] = asyncio.Queue()
    async with supervisor(embedded) as running, SupervisorClient(embedded.socket) as client:
        feed = Feed(client, lambda event: None, changes.put_nowait)
        following = asyncio.create_task(feed.run())
        async with asyncio.timeout(PATIENCE):
            assert (await changes.get()).link is Link.LIVE
            with frozen(running) as pid:
                heard_at = feed.connection.heard_at
                silent = await changes.get()
                assert (silent.link, silent.live) == (Link.SILENT, False)
                assert silent.heard_at >= heard_at
                assert f"(pid {pid}) has not answered" in silent.reason
            assert (await changes.get()).link is Link.LIVE
            assert feed.connection.heard_at > silent.heard_at
        following.cancel()


@contextlib.asynccontextmanager
async def answering_only(path: Path, answered: bytes, begin: bytes = b"") -> AsyncIterator[asyncio.Queue[bytes]]:
    """A server that answers one path, and of others the beginning at most; the paths asked for are kept."""
    asked: asyncio.Queue[bytes] = asyncio.Queue()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            wanted = (await reader.readuntil(b"\r\n\r\n")).split()[1]
            asked.put_nowait(wanted)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}" if wanted == answered else begin)
            await writer.drain()
            if wanted != answered:
                await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(answer, path):
        yield asked
