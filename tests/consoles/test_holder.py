"""What a console holder answers, asked as its supervisor does, and what it knows of when it has refused."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from supervisor.consoles import stream
from supervisor.consoles.holder import Holder
from supervisor.consoles.rotation import end_of, previous
from supervisor.system.control_lines import decode, encode
from supervisor.system.loop import Loop
from tests.harness.scarce_epoll import ScarceEpoll, scarce
from tests.harness.supervisor_process import PATIENCE

MOST = 1 << 20


class Asked:
    """A holder in a thread, and a connection to it."""

    def __init__(self, directory: Path) -> None:
        self.loop = Loop()
        self.epoll: ScarceEpoll = scarce(self.loop, 1 << 10)
        self._ours, its = socket.socketpair()
        self._ours.settimeout(PATIENCE)
        self._lines = self._ours.makefile("rb")
        self.holder = Holder(self.loop, directory / "control", its)
        self._thread = threading.Thread(target=self.loop.run)
        self._thread.start()

    def say(self, number: int, verb: str, *descriptors: int, **fields: Any) -> None:
        socket.send_fds(self._ours, [encode({"id": number, "verb": verb, **fields})], descriptors)

    def answer(self) -> dict[str, Any]:
        return decode(self._lines.readline())

    def ask(self, verb: str, *descriptors: int, **fields: Any) -> dict[str, Any]:
        self.say(1, verb, *descriptors, **fields)
        return self.answer()

    def close(self) -> None:
        """Hang up; it ends once it has no pipe."""
        self._lines.close()
        self._ours.close()
        self._thread.join(PATIENCE)
        self.holder.close()
        self.loop.close()


@pytest.fixture
def asked(run_dir: Path) -> Iterator[Asked]:
    made = Asked(run_dir)
    yield made
    made.close()


@contextlib.contextmanager
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    try:
        yield reader, writer
    finally:
        os.close(reader)
        os.close(writer)


def drained(asked: Asked, log: Path) -> dict[str, Any]:
    return asked.ask("drained", paths=[str(log)], most_seconds=PATIENCE)


def test_nothing_waits_for_a_log_whose_pipe_was_refused(asked: Asked, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pipe() as (reader, _):
        asked.epoll.room = 0
        assert "No space left" in asked.ask("hold", reader, path=str(log), most_bytes=MOST)["error"]
        assert drained(asked, log) == {"id": 1, "result": None}


def test_a_question_that_has_waited_its_time_is_not_answered_later(asked: Asked, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pipe() as (reader, _):
        asked.ask("hold", reader, path=str(log), most_bytes=MOST)
        asked.say(2, "drained", paths=[str(log)], most_seconds=0)
        asked.say(3, "drained", paths=[str(log)], most_seconds=PATIENCE)
        assert asked.ask("ping")["id"] == 1
    assert asked.answer()["id"] == 3


def test_a_log_has_the_bound_that_was_said_last(asked: Asked, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with pipe() as (reader, writer):
        for most in (MOST, 2000):
            asked.ask("hold", reader, path=str(log), most_bytes=most)
        os.write(writer, b"line\n" * 2000)
    drained(asked, log)
    assert end_of(log) == 10_000
    assert sum(one.stat().st_size for one in (log, previous(log))) <= 2000


def test_a_pipe_that_cannot_be_watched_for_a_time_is_read_on(
    asked: Asked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("REST_SECONDS", "RETRY_SECONDS"):
        monkeypatch.setattr(stream, name, 0)
    log = tmp_path / "log"
    with pipe() as (reader, writer):
        asked.epoll.room = 1
        asked.ask("hold", reader, path=str(log), most_bytes=MOST)
        os.write(writer, b"one\n")
        while not log.exists():
            asked.ask("ping")
        assert asked.ask("ping") == {"id": 1, "result": None}
        asked.epoll.room = 100
        os.write(writer, b"two\n")
    drained(asked, log)
    assert log.read_text() == "one\ntwo\n"
