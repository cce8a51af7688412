"""Tasks beside others: their results, their failures, their end."""

import asyncio

import pytest

from supervisor.concurrency.tasks import Background, beside, to_its_end


async def fail() -> None:
    raise ValueError("beside")


async def test_the_body_has_the_result_of_what_ran_beside_it() -> None:
    async with beside(asyncio.sleep(0, "result")) as task:
        assert await task == "result"


async def test_what_ran_beside_fails_who_awaits_it() -> None:
    with pytest.raises(ValueError, match="beside"):
        async with beside(fail()) as task:
            await task


async def test_a_body_that_fails_ends_what_runs_beside_it() -> None:
    with pytest.raises(KeyError):
        async with beside(asyncio.Event().wait()) as task:
            raise KeyError
    assert task.cancelled()


async def test_of_two_failures_the_bodys_is_told_and_nothing_of_the_other() -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    with pytest.raises(KeyError):
        async with beside(fail()) as task:
            await asyncio.wait((task,))
            raise KeyError
    del task
    assert complaints == []


async def test_a_failure_in_the_background_is_logged_and_no_cancellation(caplog: pytest.LogCaptureFixture) -> None:
    background = Background("the care for a thing")
    background.spawn(fail())
    await background.join()
    assert caplog.messages == ["the care for a thing failed"]
    ended: list[str] = []

    async def until_cancelled() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")

    background.spawn(until_cancelled())
    await asyncio.sleep(0)
    await background.cancel()
    assert ended == ["cancelled"]
    assert caplog.messages == ["the care for a thing failed"]


async def test_what_is_to_come_to_its_end_does_so_however_often_it_is_cancelled() -> None:
    begun, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await may_end.wait()
        ended.set()

    waiting = asyncio.create_task(to_its_end(work()))
    await begun.wait()
    for _ in range(2):
        waiting.cancel()
        await asyncio.wait((waiting,), timeout=0)
        assert not waiting.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()


@pytest.mark.parametrize("cancelled", [False, True])
async def test_the_failure_of_what_comes_to_its_end_is_told_unless_it_is_cancelled(cancelled: bool) -> None:
    complaints: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, complaint: complaints.append(complaint))
    begun, may_fail = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        await may_fail.wait()
        await fail()

    waiting = asyncio.create_task(to_its_end(work()))
    await begun.wait()
    if cancelled:
        waiting.cancel()
    may_fail.set()
    with pytest.raises(asyncio.CancelledError if cancelled else ValueError):
        await waiting
    assert complaints == []
