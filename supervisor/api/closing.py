"""How requests that wait for something end: with the server, or with whoever asked."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, Final, TypeVar

from aiohttp import web

from supervisor.errors import BadRequestError, StoppingError

LOOK_SECONDS: Final = 0.5
"""How often it is looked whether somebody still waits for an answer."""

Result = TypeVar("Result")


class Closing:
    """The bounds of all requests that wait; closing brings them forward, so that none holds the server up."""

    def __init__(self) -> None:
        self.closed = False
        self._bounds: dict[asyncio.Timeout, float] = {}

    @asynccontextmanager
    async def bound(self, seconds: float | None, grace: float = 0.0) -> AsyncIterator[None]:
        """Raise TimeoutError in the body after `seconds`, or `grace` seconds after the server began to close."""
        async with asyncio.timeout(grace if self.closed else seconds) as bound:
            self._bounds[bound] = grace
            try:
                yield
            finally:
                del self._bounds[bound]

    @asynccontextmanager
    async def body(self, seconds: float, late: str) -> AsyncIterator[None]:
        """Bound a read of a body; raises BadRequestError, which says `late`, or StoppingError where it closes first."""
        try:
            async with self.bound(seconds):
                yield
        except TimeoutError as error:
            if self.closed:
                raise StoppingError(
                    "the body is read no further: the supervisor is stopping; ask the next one"
                ) from error
            raise BadRequestError(f"{late} within {seconds:.0f} s; send it whole") from error

    def close(self) -> None:
        """Bring every bound forward to its grace."""
        self.closed = True
        now = asyncio.get_running_loop().time()
        for bound, grace in self._bounds.items():
            latest = now + grace
            if not bound.expired():
                bound.reschedule(min(latest, bound.when() or latest))


async def while_read(request: web.Request, work: Coroutine[Any, Any, Result]) -> Result:
    """Return what `work` comes to; TimeoutError, and it is cancelled, where nobody waits for the answer any more."""
    task = asyncio.create_task(work)
    try:
        while not (await asyncio.wait((task,), timeout=LOOK_SECONDS))[0] and request.transport is not None:
            continue
        if not task.done():
            raise TimeoutError("whoever waited has gone")
        return task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
