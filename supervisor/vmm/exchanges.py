"""Requests and their answers over connections of which the last may be the only way to a peer."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

Answer = TypeVar("Answer")


class Exchanges(Generic[Answer]):
    """Those with one peer; breaking one off closes its connection.

    Where no other can be had they take turns, and none is broken off: one that nobody waits for any more ends by the
    peer's answer, or with the connection.
    """

    def __init__(self, can_reconnect: Callable[[], bool]) -> None:
        self._can_reconnect = can_reconnect
        self._going: set[asyncio.Task[Answer]] = set()

    async def wait_for(self, exchange: Callable[[], Coroutine[Any, Any, Answer]], seconds: float) -> Answer:
        """Return what an exchange returns; TimeoutError after `seconds`, in which it may not have got its turn."""
        async with asyncio.timeout(seconds):
            while self._going and not self._can_reconnect():
                await asyncio.wait(self._going)
            task = asyncio.create_task(exchange())
            self._going.add(task)
            task.add_done_callback(self._ended)
            try:
                await asyncio.wait((task,))
            except asyncio.CancelledError:
                if self._can_reconnect():
                    task.cancel()
                raise
            return task.result()

    async def all_ended(self) -> None:
        """Wait for the end of those that go on, once their connections are closed."""
        await asyncio.gather(*self._going, return_exceptions=True)

    def _ended(self, task: "asyncio.Task[Answer]") -> None:
        self._going.discard(task)
        # Read here, for asyncio complains of a failure that nobody has read.
        if not task.cancelled():
            task.exception()
