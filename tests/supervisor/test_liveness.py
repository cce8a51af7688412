"""A process that is stuck is replaced; one that is slow, or is not given a CPU, is waited for."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from supervisor.runtime import liveness
from supervisor.runtime.liveness import HANGING_BOUND, STARTING_BOUND, STOPPED_BOUND, Liveness
from supervisor.system.processes import cpu_wait_seconds
from tests.harness.waiting import until


@dataclass
class Time:
    """What passes for all, and what of it a process waits for a CPU."""

    now: float = 1000.0
    waited: float = 20.0

    def passes(self, seconds: float, *, waiting: float = 0.0) -> None:
        self.now += seconds
        self.waited += waiting


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    """Return a time that passes where a test says so."""
    made = Time()
    monkeypatch.setattr(liveness, "time", SimpleNamespace(monotonic=lambda: made.now))
    monkeypatch.setattr(liveness, "cpu_wait_seconds", lambda pid: made.waited)
    return made


@pytest.fixture
def busy() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Yield two processes that have one CPU between them."""
    processes = [subprocess.Popen((sys.executable, "-c", "while True: pass")) for _ in range(2)]
    cpu = min(os.sched_getaffinity(0))
    for process in processes:
        os.sched_setaffinity(process.pid, {cpu})
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def test_one_that_has_answered_before_is_replaced_once_it_is_silent(time: Time) -> None:
    watched = Liveness(os.getpid())
    watched.answered()
    time.passes(STOPPED_BOUND)
    assert not watched.unanswered()
    time.passes(HANGING_BOUND - STOPPED_BOUND)
    assert watched.unanswered()
    assert watched.silent_seconds == HANGING_BOUND


def test_one_that_starts_is_given_a_minute_for_its_first_answer(time: Time) -> None:
    watched = Liveness(os.getpid())
    assert not watched.unanswered()
    time.passes(STARTING_BOUND - STOPPED_BOUND - 1)
    assert not watched.unanswered()
    time.passes(1)
    assert watched.unanswered()


def test_what_it_waits_for_a_cpu_is_no_silence_of_its_own(time: Time) -> None:
    watched = Liveness(os.getpid())
    watched.answered()
    assert not watched.unanswered()
    time.passes(100, waiting=97)
    assert not watched.unanswered()
    time.passes(1)
    assert watched.unanswered()


def test_an_answer_ends_a_silence(time: Time) -> None:
    watched = Liveness(os.getpid())
    watched.answered()
    watched.unanswered()
    watched.answered()
    time.passes(100)
    assert not watched.unanswered()


def test_one_that_is_stopped_is_replaced_at_once(busy: list[subprocess.Popen[bytes]]) -> None:
    watched = Liveness(busy[0].pid)
    assert not watched.unanswered()
    busy[0].send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, busy[0].pid, os.WSTOPPED | os.WNOWAIT)
    assert watched.unanswered()


async def test_the_kernel_tells_for_how_long_a_process_has_waited_for_a_cpu(
    busy: list[subprocess.Popen[bytes]],
) -> None:
    await until(lambda: sum(cpu_wait_seconds(process.pid) for process in busy) > 0.1)


def test_of_a_process_that_is_gone_nothing_is_told(busy: list[subprocess.Popen[bytes]]) -> None:
    busy[0].kill()
    busy[0].wait()
    assert cpu_wait_seconds(busy[0].pid) == 0
