"""Waits that something else than the clock may end."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self


class Interruption:
    """Ends the waits of its body once it is fired, as asyncio.timeout does when its time has come.

    The body is cancelled at its innermost wait, in the same task: a result that it had got is not lost, and what it
    undoes when it is cancelled is undone. `error` is raised of it then.
    """

    def __init__(self, error: Callable[[], Exception]) -> None:
        self.fired = False
        self._error = error
        self._task: asyncio.Task[object] | None = None
        self._cancelling = 0

    def fire(self) -> None:
        """End the body's waits; not from the body itself. Does nothing once the body has ended."""
        if self._task is not None and not self.fired:
            self.fired = True
            self._task.cancel()

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, traceback: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        assert task is not None
        # As asyncio.timeout: whoever else has cancelled the task meanwhile has that cancellation raised.
        if self.fired and task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._error() from raised
