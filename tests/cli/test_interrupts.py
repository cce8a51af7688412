"""What interrupts a command that has something to clear up."""

import asyncio
import gc
import logging
import os
import signal

import pytest

from forktui.demo.interrupts import INTERRUPTS, interruptible_once, run_interruptible


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
