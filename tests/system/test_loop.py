"""The page server's loop: what comes before what."""

import os
import time
from collections.abc import Iterator

import pytest

from supervisor.system.loop import Loop


@pytest.fixture
def loop() -> Iterator[Loop]:
    """A loop of its own."""
    made = Loop()
    yield made
    made.close()


def test_idle_work_waits_for_whatever_is_ready_and_takes_turns(loop: Loop) -> None:
    ready, wakes = os.pipe()
    done: list[str] = []

    def on_ready() -> None:
        done.append(os.read(ready, 1).decode())

    def idle(name: str, times: int) -> None:
        left = iter(range(times - 1, -1, -1))

        def work() -> bool:
            done.append(name)
            more = next(left) > 0
            if not more and name == "long":
                loop.stop()
            return more

        loop.add_idle(work)

    loop.watch(ready, on_ready)
    idle("long", 3)
    idle("short", 1)
    os.write(wakes, b"ab")
    loop.run()
    assert done == ["a", "b", "long", "short", "long", "long"]
    os.close(ready)
    os.close(wakes)


def test_timers_fire_in_their_order_and_not_when_cancelled(loop: Loop) -> None:
    now = time.monotonic_ns()
    fired: list[str] = []
    loop.call_at(now + 3_000_000, loop.stop)
    loop.call_at(now + 3_000_000, lambda: fired.append("last"))
    loop.call_at(now + 2_000_000, lambda: fired.append("cancelled")).cancel()
    loop.call_at(now + 1_000_000, lambda: fired.append("first"))
    loop.call_later(0, lambda: fired.append("now"))
    loop.run()
    assert fired == ["now", "first", "last"]
    assert time.monotonic_ns() >= now + 3_000_000


def test_a_descriptor_that_a_callback_has_dropped_is_not_called(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    called: list[int] = []

    def on_ready(mine: int) -> None:
        called.append(mine)
        for ready, _ in pipes:
            loop.unwatch(ready)
        loop.stop()

    for number, (ready, wakes) in enumerate(pipes):
        loop.watch(ready, lambda number=number: on_ready(number))  # type: ignore[misc]
        os.write(wakes, b"x")
    loop.run()
    assert len(called) == 1
    for pipe in pipes:
        for fd in pipe:
            os.close(fd)


def test_what_was_ready_is_not_told_to_another_that_got_its_number(loop: Loop) -> None:
    pipes = [os.pipe() for _ in range(2)]
    called: list[str] = []

    def on_ready() -> None:
        called.append("first")
        for ready, _ in pipes:
            loop.unwatch(ready)
            loop.watch(ready, lambda: called.append("another"))
        loop.stop()

    for ready, wakes in pipes:
        loop.watch(ready, on_ready)
        os.write(wakes, b"x")
    loop.run()
    assert called[0] == "first"
    assert "another" not in called
    for pipe in pipes:
        for fd in pipe:
            os.close(fd)
