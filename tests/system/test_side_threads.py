"""Work that may never return: bounded in number and in time, and nobody else's threads."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from functools import partial

import pytest

from supervisor.concurrency import side_threads
from supervisor.concurrency.side_threads import SideThreads, in_time

SHORT = 0.05
LONG = 30.0

context: ContextVar[str] = ContextVar("context", default="none")


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    """What hangs until the test is over."""
    made = threading.Event()
    yield made
    made.set()


async def test_what_work_does_is_returned_and_raised() -> None:
    threads = SideThreads(2, "tests")
    context.set("mine")
    assert await threads.run("a", LONG, context.get) == "mine"
    with pytest.raises(ZeroDivisionError):
        await threads.run("a", LONG, lambda: 1 // 0)
    with pytest.raises(RecursionError):
        await threads.run("a", LONG, lambda: (_ for _ in ()).throw(RecursionError()))


async def test_work_that_hangs_is_given_up_and_not_begun_again_until_it_returns(gate: threading.Event) -> None:
    threads, begun = SideThreads(8, "tests"), []

    def hang() -> None:
        begun.append(1)
        gate.wait(LONG)

    with pytest.raises(TimeoutError, match="no answer after 0 s"):
        await threads.run("hangs", SHORT, hang)
    for _ in range(3):
        with pytest.raises(TimeoutError, match="no answer after 0 s"):
            await threads.run("hangs", SHORT, hang)
    assert len(begun) == 1
    assert await threads.run("another", LONG, lambda: 1) == 1
    gate.set()
    async with asyncio.timeout(LONG):
        while True:
            try:
                assert await threads.run("hangs", SHORT, lambda: 2) == 2
                break
            except TimeoutError:
                await asyncio.to_thread(gate.wait, SHORT)


async def test_what_hangs_gives_its_place_back(gate: threading.Event) -> None:
    threads = SideThreads(2, "images")
    hung = [asyncio.create_task(threads.run(f"{n}", SHORT, lambda: gate.wait(LONG))) for n in range(10)]
    assert await threads.run("another", LONG, lambda: 1) == 1
    for result in await asyncio.gather(*hung, return_exceptions=True):
        assert str(result) == "no answer after 0 s"


async def test_one_subject_takes_half_of_the_places_and_is_begun_no_more_once_it_hangs(gate: threading.Event) -> None:
    threads, begun = SideThreads(8, "images"), []

    def hang() -> None:
        begun.append(1)
        gate.wait(LONG)

    crowd = [asyncio.create_task(threads.run("hangs", LONG, hang)) for _ in range(20)]
    assert await threads.run("another", LONG, lambda: 1) == 1
    assert len(begun) == 4
    for one in crowd:
        one.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    crowd = [asyncio.create_task(threads.run("hangs too", SHORT, hang)) for _ in range(20)]
    for result in await asyncio.gather(*crowd, return_exceptions=True):
        assert isinstance(result, TimeoutError)
    assert len(begun) == 8


async def test_work_that_nobody_waits_for_any_more_gives_its_place_back_when_its_time_is_up(
    gate: threading.Event,
) -> None:
    threads = SideThreads(1, "images")
    first = asyncio.create_task(threads.run("hangs", SHORT, lambda: gate.wait(LONG)))
    await asyncio.sleep(0)
    first.cancel()
    assert await threads.run("another", LONG, lambda: 1) == 1
    with pytest.raises(TimeoutError, match="no answer after 0 s"):
        await threads.run("hangs", LONG, lambda: 1)


async def test_when_too_many_hang_that_is_told(gate: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_threads, "MOST_GIVEN_UP", 2)
    threads = SideThreads(4, "images")
    for name in ("first", "second"):
        with pytest.raises(TimeoutError):
            await threads.run(name, SHORT, lambda: gate.wait(LONG))
    words = "2 threads for images have been given up and have not returned, the first of them for first"
    with pytest.raises(TimeoutError, match=words):
        await threads.run("third", SHORT, lambda: None)


async def test_more_work_than_threads_has_its_turn() -> None:
    threads = SideThreads(2, "tests")
    assert await asyncio.gather(*(threads.run(f"{n}", LONG, partial(abs, n)) for n in range(100))) == list(range(100))


async def test_work_that_moves_is_not_given_up(gate: threading.Event) -> None:
    threads, looks = SideThreads(2, "tests"), []

    def moved() -> int:
        looks.append(1)
        if len(looks) == 3:
            gate.set()
        return len(looks)

    assert await threads.run("copy", SHORT, lambda: gate.wait(LONG), moved)


def test_without_a_loop_too(gate: threading.Event) -> None:
    assert in_time(LONG, lambda: 1) == 1
    with pytest.raises(TimeoutError, match="no answer after 0 s"):
        in_time(SHORT, lambda: gate.wait(LONG))
    with pytest.raises(FileNotFoundError):
        in_time(LONG, lambda: open("/gone"))  # noqa: PTH123, SIM115


def test_a_process_ends_though_a_thread_hangs() -> None:
    code = """if True:
        import asyncio, threading
        from supervisor.concurrency.side_threads import SideThreads
        async def main():
            try:
                await SideThreads(1, "x").run("x", 0.01, threading.Event().wait)
            except TimeoutError:
                print("given up")
        asyncio.run(main())
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LONG, check=True)
    assert done.stdout == "given up\n"
