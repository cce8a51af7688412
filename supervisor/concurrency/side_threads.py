"""Threads of their own for work that may never return, such as reading a file on a mount that does not answer.

The event loop's threads are few, and every verb needs them: one that waits in the kernel for a network file system is
lost to all others, and is waited for at the end of the process. These are neither.
"""

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, TypeVar, cast
from weakref import WeakValueDictionary

Result = TypeVar("Result")

MOST_GIVEN_UP: Final = 64
"""Threads that were given up and have not returned, of one kind: each is a task of the kernel's, and some memory."""

_NAME: Final = "side"


@dataclass(eq=False)
class _Work(Generic[Result]):
    """What one thread does."""

    subject: str
    ended: bool = False
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
        raise _no_answer(seconds)
    return _outcome(made)


class SideThreads:
    """At most `most` of them at once, half of these about one subject, and besides those that were given up.

    None begins about a subject of which one was given up and has not returned, nor while MOST_GIVEN_UP have not.
    """

    def __init__(self, most: int, what: str) -> None:
        """`what` is what they do, in words for a message."""
        self._what = what
        self._free = asyncio.Semaphore(most)
        self._share = max(most // 2, 1)
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        """There as long as somebody has one, or waits for it."""
        self._given_up: dict[_Work[Any], float] = {}
        """And after how many seconds."""

    async def run(
        self,
        subject: str,
        seconds: float,
        work: Callable[[], Result],
        moved: Callable[[], object] | None = None,
    ) -> Result:
        """Return what `work` does, of a `subject` that messages name; raises what it raises.

        TimeoutError, in words, where it has not returned after so many seconds in which what `moved` returns has not
        changed either, and for what does not begin. A thread that is given up goes on, and another has its place.
        """
        self._refuse_what_hangs(subject)
        place = await self._place(subject)
        try:
            self._refuse_what_hangs(subject)
            made, ended = self._begun(subject, work, place)
        except BaseException:
            place.close()
            raise
        try:
            await _until(ended, seconds, moved)
        except TimeoutError:
            self._give_up(made, seconds, place)
            raise
        except asyncio.CancelledError:
            # Nobody waits for it, and it may return all the same.
            asyncio.get_running_loop().call_later(seconds, self._give_up, made, seconds, place)
            raise
        return _outcome(made)

    def _refuse_what_hangs(self, subject: str) -> None:
        """Raise TimeoutError, in words that do not change as time goes on."""
        for one, seconds in self._given_up.items():
            if one.subject == subject:
                raise _no_answer(seconds)
        if len(self._given_up) >= MOST_GIVEN_UP:
            first = next(iter(self._given_up))
            raise TimeoutError(
                f"{MOST_GIVEN_UP} threads for {self._what} have been given up and have not returned, the first of them "
                f"for {first.subject}"
            )

    async def _place(self, subject: str) -> contextlib.ExitStack:
        """Return a place to be closed. It is waited for without a bound: whoever has one hangs with a bound."""
        share = self._shares.setdefault(subject, asyncio.Semaphore(self._share))
        with contextlib.ExitStack() as place:
            for semaphore in (share, self._free):
                await semaphore.acquire()
                place.callback(semaphore.release)
            return place.pop_all()

    def _begun(
        self, subject: str, work: Callable[[], Result], place: contextlib.ExitStack
    ) -> tuple[_Work[Result], asyncio.Event]:
        made, ended, loop = _Work[Result](subject), asyncio.Event(), asyncio.get_running_loop()

        def end() -> None:
            made.ended = True
            self._given_up.pop(made, None)
            place.close()
            ended.set()

        def tell() -> None:
            # The loop may have ended meanwhile.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(end)

        _start(made, work, tell)
        return made, ended

    def _give_up(self, made: _Work[Result], seconds: float, place: contextlib.ExitStack) -> None:
        if not made.ended:
            self._given_up[made] = seconds
            place.close()


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
                raise _no_answer(seconds) from None
            before = now


def _no_answer(seconds: float) -> TimeoutError:
    return TimeoutError(f"no answer after {seconds:.0f} s")


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
