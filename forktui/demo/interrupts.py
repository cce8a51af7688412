"""SIGINT, SIGTERM and SIGHUP to a command that has something to clear up: the first one ends it, and no other."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, Final, TypeVar

INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Outcome = TypeVar("Outcome")


@contextlib.contextmanager
def interruptible_once() -> Iterator[None]:
    """Let the first interrupt unwind the stack as KeyboardInterrupt; the clearing up after it is not interrupted."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        ignore_interrupts()
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def ignore_interrupts() -> None:
    """Let nothing interrupt until the end of `interruptible_once`."""
    for number in INTERRUPTS:
        signal.signal(number, signal.SIG_IGN)


def run_interruptible(work: Coroutine[Any, Any, Outcome]) -> Outcome:
    """Run a coroutine in an event loop of its own; the first interrupt cancels it and is raised when it has ended.

    Raised inside of the loop, as `interruptible_once` alone would have it, a KeyboardInterrupt that hits a task of a
    group is also logged as one that nobody has retrieved.
    """
    interrupted = False

    async def cancellable() -> Outcome:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None

        def interrupt(number: int, frame: FrameType | None) -> None:
            nonlocal interrupted
            interrupted = True
            ignore_interrupts()
            loop.call_soon_threadsafe(task.cancel)

        before = {number: signal.signal(number, interrupt) for number in INTERRUPTS}
        try:
            return await work
        finally:
            if not interrupted:
                for number, handler in before.items():
                    signal.signal(number, handler)

    try:
        return asyncio.run(cancellable())
    except asyncio.CancelledError:
        if interrupted:
            raise KeyboardInterrupt from None
        raise
