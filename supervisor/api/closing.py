"""How a stopping server ends the requests that wait for something."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


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

    def close(self) -> None:
        """Bring every bound forward to its grace."""
        self.closed = True
        now = asyncio.get_running_loop().time()
        for bound, grace in self._bounds.items():
            latest = now + grace
            if not bound.expired():
                bound.reschedule(min(latest, bound.when() or latest))
