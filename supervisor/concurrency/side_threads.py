"""Threads of their own for work that may never return, such as reading a file on a mount that does not answer.

The event loop's threads are few, and every verb needs them: one that waits in the kernel for a network file system is
lost to all others, and is waited for at the end of the process. These are neither.
"""

import asyncio
import contextlib
import contextvars
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar, cast

Result = TypeVar("Result")

_NAME: Final = "side"


@dataclass
class _Work(Generic[Result]):
    """What one thread does, and when it began to."""

    subject: str
    since: float = field(default_factory=time.monotonic)
    result: Result | None = None
    error: BaseException | None = None


def in_time(seconds: float, work: Callable[[], Result]) -> Result:
    """Return what `work` does in a thread of its own; raises what that raises, and TimeoutError after so many seconds.

    For a program that has no event loop yet. A thread that is given up goes on, and ends with the process.
    """
    made = _Work[Result]("")
    ended = threading.Event()
    _start(made, work, ended.set)
    if not ended.wait(seconds):
        raise TimeoutError(f"no answer after {seconds:.0f} s")
    return _outcome(made)


class SideThreads:
    """At most `most` of them at once. None begins about a subject of which one was given up and has not returned."""

    def __init__(self, most: int, what: str) -> None:
        """`what` is what they do, in words for a message."""
        self._most = most
        self._what = what
        self._free: asyncio.Semaphore | None = None
        self._under_way: dict[int, _Work[Any]] = {}

    async def run(
        self,
        subject: str,
        seconds: float,
        work: Callable[[], Result],
        moved: Callable[[], object] | None = None,
    ) -> Result:
        """Return what `work` does, of a `subject` that messages name; raises what it raises.

        TimeoutError, in words, where it has not returned after so many seconds in which what `moved` returns has not
        changed either, or where none of the threads was free for so long. A thread that is given up goes on.
        """
        self._refuse_what_hangs(subject, seconds)
        await self._turn(seconds)
        made = _Work[Result](subject)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._under_way[id(made)] = made

        def tell() -> None:
            # The loop may have ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._ended, made, ended)

        try:
            _start(made, work, tell)
        except BaseException:
            self._ended(made, ended)
            raise
        await _until(ended, seconds, moved)
        return _outcome(made)

    def _refuse_what_hangs(self, subject: str, seconds: float) -> None:
        for one in self._under_way.values():
            age = time.monotonic() - one.since
            if one.subject == subject and age >= seconds:
                raise TimeoutError(f"no answer for {age:.0f} s")

    async def _turn(self, seconds: float) -> None:
        if self._free is None:
            self._free = asyncio.Semaphore(self._most)
        try:
            async with asyncio.timeout(seconds):
                await self._free.acquire()
        except TimeoutError:
            first = min(self._under_way.values(), key=lambda one: one.since)
            raise TimeoutError(
                f"all {self._most} threads for {self._what} are taken, one of them for "
                f"{time.monotonic() - first.since:.0f} s by {first.subject}"
            ) from None

    def _ended(self, made: _Work[Result], ended: asyncio.Event) -> None:
        del self._under_way[id(made)]
        assert self._free is not None
        self._free.release()
        ended.set()


async def _until(ended: asyncio.Event, seconds: float, moved: Callable[[], object] | None) -> None:
    before: object = None
    while True:
        try:
            async with asyncio.timeout(seconds):
                await ended.wait()
            return
        except TimeoutError:
            now = moved() if moved is not None else None
            if now == before:
                raise TimeoutError(f"no answer after {seconds:.0f} s") from None
            before = now


def _start(made: _Work[Result], work: Callable[[], Result], tell: Callable[[], object]) -> None:
    context = contextvars.copy_context()

    def do() -> None:
        try:
            made.result = context.run(work)
        except BaseException as error:
            made.error = error
        tell()

    threading.Thread(target=do, name=_NAME, daemon=True).start()


def _outcome(made: _Work[Result]) -> Result:
    if made.error is not None:
        raise made.error
    return cast(Result, made.result)
