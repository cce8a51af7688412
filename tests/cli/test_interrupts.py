"""What interrupts a command that has something to clear up."""

import asyncio
import gc
import logging
import os
import signal
import subprocess
import sys

import pytest

from forktui.demo.interrupts import INTERRUPTS, interruptible_once, run_interruptible
from tests.harness.checkout import ROOT

ROUNDS = 3000
INTERRUPTED = f"""
import asyncio, faulthandler, os, random, signal, sys, threading, time
sys.path.insert(0, {str(ROOT)!r})
from forktui.demo.interrupts import interruptible_once, run_interruptible

turn = threading.Semaphore(0)

def send():
    while turn.acquire():
        until = time.perf_counter() + random.random() * 2e-4
        while time.perf_counter() < until:
            pass
        os.kill(os.getpid(), signal.SIGTERM)

def compute():
    while True:
        sum(range(50))

async def work():
    turn.release()
    await asyncio.Event().wait()

for thread in (send, compute):
    threading.Thread(target=thread, daemon=True).start()
sys.setswitchinterval(1e-5)
for _ in range({ROUNDS}):
    faulthandler.dump_traceback_later(20, exit=True)
    try:
        with interruptible_once():
            run_interruptible(work())
    except KeyboardInterrupt:
        pass
print("ended")
"""
"""The window is a microsecond wide, and wider where another thread wants the interpreter's lock."""


@pytest.mark.parametrize("number", INTERRUPTS, ids=lambda number: number.name)
def test_one_that_hits_a_task_at_work_ends_it_and_nothing_else_is_said(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[str] = []

    async def hit() -> None:
        os.kill(os.getpid(), number)

    async def work() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(hit())
                await asyncio.Event().wait()
        finally:
            # The second one does not keep it from its end.
            os.kill(os.getpid(), number)
            await asyncio.to_thread(ended.append, "cleared up")

    with caplog.at_level(logging.ERROR), interruptible_once(), pytest.raises(KeyboardInterrupt):
        run_interruptible(work())
    gc.collect()
    assert ended == ["cleared up"]
    assert caplog.messages == []


def test_without_one_the_outcome_is_returned_and_the_handlers_are_as_before() -> None:
    before = [signal.getsignal(number) for number in INTERRUPTS]

    async def work() -> int:
        return 7

    with interruptible_once():
        within = [signal.getsignal(number) for number in INTERRUPTS]
        assert run_interruptible(work()) == 7
        assert [signal.getsignal(number) for number in INTERRUPTS] == within
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)
    assert [signal.getsignal(number) for number in INTERRUPTS] == before


def test_a_cancellation_of_the_works_own_is_no_interrupt() -> None:
    async def work() -> None:
        raise asyncio.CancelledError

    with pytest.raises(asyncio.CancelledError):
        run_interruptible(work())


@pytest.mark.slow
def test_one_that_comes_just_before_the_loop_waits_is_not_slept_through() -> None:
    ran = subprocess.run((sys.executable, "-c", INTERRUPTED), capture_output=True, text=True, timeout=120)
    assert (ran.stdout, ran.stderr) == ("ended\n", "")
