"""A supervisor of recorded events whose guests print what a test has them print."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence

from forktui.client.api import LogSource
from supervisor.models import Event
from tests.harness.recorded_supervisor import RecordedSupervisor


class PrintingSupervisor(RecordedSupervisor):
    """Every guest prints the same lines, and then those that `print_more` is given."""

    def __init__(self, events: Sequence[Event], lines: Iterable[str]) -> None:
        super().__init__(events)
        self._lines = lines
        self._more: asyncio.Queue[Sequence[str] | Exception] = asyncio.Queue()

    def print_more(self, *lines: str) -> None:
        """Have the guest print lines."""
        self._more.put_nowait(lines)

    def lose(self, error: Exception) -> None:
        """End whoever follows a console with an error."""
        self._more.put_nowait(error)

    async def follow_log(
        self,
        reference: str,
        tail: int = 100,
        source: LogSource = "app",
        alive: Callable[[], object] = lambda: None,
    ) -> AsyncGenerator[str, None]:
        alive()
        for line in self._lines:
            yield line
        while True:
            more = await self._more.get()
            if isinstance(more, Exception):
                raise more
            for line in more:
                yield line
