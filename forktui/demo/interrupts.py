"""SIGINT, SIGTERM and SIGHUP to a command that has something to clear up: the first one ends it, and no other."""

import asyncio
import contextlib
import signal
import socket
import threading
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, Final, TypeVar

INTERRUPTS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

NUMBERS_BYTES: Final = 4096
"""Signals are a byte each, and none of them is counted."""

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


@contextlib.contextmanager
def woken_by_signals() -> Iterator[None]:
    """Have the event loop that runs wake up for every signal, and its handler run at once.

    It sleeps through a signal that comes just before it waits, until something else wakes it, unless the interpreter
    itself writes to what it waits for (signal.set_wakeup_fd); asyncio.run does not see to that. Handlers are run in the
    main thread, and a loop in another one is woken for none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    reader, writer = socket.socketpair()
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        loop.add_reader(reader, reader.recv, NUMBERS_BYTES)
        before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(before)
            loop.remove_reader(reader)


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
            with woken_by_signals():
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
