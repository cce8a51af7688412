"""A page server that says what none says: whoever asks is told so in one line, within a bound, and goes on."""

import asyncio
import json
import os
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest

from supervisor.errors import PageServerError
from supervisor.system import control_connection
from supervisor.system.control_lines import LINE_BYTES
from supervisor.system.processes import start_time_of
from supervisor.uffd import program
from supervisor.uffd.handle import PageServer
from supervisor.uffd.putting_back import listen_again
from tests.harness.supervisor_process import PATIENCE


async def refused(control: Path, answer: bytes) -> str:
    """Return the error of a request that is answered so."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        with suppress(OSError):
            writer.write(answer)
            await writer.drain()
            await reader.read()
        writer.close()

    async with await asyncio.start_unix_server(serve, control):
        async with asyncio.timeout(PATIENCE):
            with pytest.raises(PageServerError) as told:
                await PageServer.connect(
                    template_id="template",
                    control=control,
                    pid=os.getpid(),
                    start_time=start_time_of(os.getpid()),
                    on_event=lambda event: None,
                )
    return told.value.message


@pytest.mark.parametrize(
    "answer",
    [
        b"{}\n",
        b'{"id": [1]}\n',
        b'{"id": 1}\n',
        b"[]\n",
        b"\xff\xfe\n",
        b"x" * (3 * LINE_BYTES),
        b"[" * LINE_BYTES + b"\n",
        b'{"event": "Gone"}\n',
        b'{"event": {"a": 1}}\n',
        b'{"event": "Sampled", "held_back": -1, "touched": 0}\n',
        b'{"event": "Sampled", "held_back": 1e300, "touched": 0}\n',
        b'{"event": "Sampled", "held_back": true, "touched": 0}\n',
        b'{"event": "Gone", "fork_id": ["x"], "reason": "y"}\n',
        b'{"id": 1, "result": {}}\n',
        b'{"id": 1, "result": 5}\n',
    ],
    ids=[
        "no id",
        "an odd id",
        "no result",
        "a list",
        "no text",
        "no line end",
        "deep",
        "half an event",
        "odd event",
        "below nothing",
        "beyond all",
        "no number",
        "no id",
        "no status",
        "a number",
    ],
)
async def test_what_is_no_answer_ends_the_connection(
    run_dir: Path, answer: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_connection, "ANSWER_SECONDS", PATIENCE)
    message = await refused(run_dir / "control", answer)
    assert "cannot be understood" in message
    assert message.isprintable()


async def test_an_error_is_told_escaped(run_dir: Path) -> None:
    words = "\x1b[2Jgone\nforged\u202e"
    message = await refused(run_dir / "control", json.dumps({"id": 1, "error": words}).encode() + b"\n")
    assert message.isprintable()
    assert "gone" in message


async def test_an_error_of_no_words_is_told(run_dir: Path) -> None:
    assert await refused(run_dir / "control", b'{"id": 1, "error": {"a": 1}}\n') == "{'a': 1}"


async def test_events_without_end_are_no_answer(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control_connection, "ANSWER_SECONDS", 0.2)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while True:
                writer.write(b'{"event": "Gone", "fork_id": "x", "reason": "y"}\n')
                await writer.drain()

    control = run_dir / "control"
    async with await asyncio.start_unix_server(serve, control), asyncio.timeout(PATIENCE):
        streams = await control_connection.open_streams("it", control, os.getpid(), PageServerError)
        connection = control_connection.Connection("it", streams, lambda _: None, PageServerError)
        with open(os.devnull) as file, pytest.raises(PageServerError, match="did not answer adopt within"):  # noqa: PTH123, ASYNC230 - as any
            await connection.hand("adopt", (file.fileno(),))
        connection.close("was disconnected from")


@pytest.mark.parametrize(
    "said", [b"x" * (1 << 20), b"\xff\n", b"", b"\n"], ids=["no line", "no text", "nothing", "empty"]
)
async def test_a_first_line_that_is_none_says_nothing(said: bytes) -> None:
    read_end, write_end = os.pipe()

    def write() -> None:
        with os.fdopen(write_end, "wb") as pipe, suppress(OSError):
            pipe.write(said)

    writing = threading.Thread(target=write)
    writing.start()
    async with asyncio.timeout(PATIENCE):
        assert await program._first_line(read_end) == ""
    await asyncio.to_thread(writing.join)


@pytest.mark.parametrize("said", [b"{}\n", b"no JSON\n", b"x", b""], ids=["others", "no answer", "no end", "nothing"])
def test_one_whose_way_back_leads_nowhere_is_waited_for_within_a_bound(run_dir: Path, said: bytes) -> None:
    ours, theirs = socket.socketpair()

    def say() -> None:
        with suppress(OSError):
            while said:
                ours.sendall(said)

    control, saying = run_dir / "control", threading.Thread(target=say)
    with ours, theirs, subprocess.Popen(("sleep", "infinity"), stdout=theirs.fileno()) as process:
        pidfd = os.pidfd_open(process.pid)
        saying.start()
        try:
            began = time.monotonic()
            with pytest.raises((OSError, ValueError)):
                listen_again(pidfd, control, 0.3)
            assert time.monotonic() - began < PATIENCE
            assert not control.exists()
        finally:
            os.close(pidfd)
            process.kill()
            ours.shutdown(socket.SHUT_RDWR)
            saying.join(PATIENCE)
