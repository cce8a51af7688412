"""Tasks that live no longer than what they were started for."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from supervisor.concurrency.progress import uncancelled

Result = TypeVar("Result")

_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def beside(work: Coroutine[Any, Any, Result]) -> AsyncIterator["asyncio.Task[Result]"]:
    """Run `work` beside the body, which awaits the task for its result; it is cancelled where the body does not."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        # Also where the body failed before it: its own failure is nobody's then, and asyncio would complain of that.
        await asyncio.gather(task, return_exceptions=True)


async def to_its_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Return what `work` comes to, and not before, though whoever awaits that is cancelled: it is raised then.

    For what undoes: asyncio.shield lets the work go on as well, and its caller too, who is in the midst of it.
    """
    task = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait((task,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled from task.exception()
    return task.result()


class Background:
    """Tasks that nobody awaits; a failure of one is logged, as that of `what`."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._tasks: set[asyncio.Task[None]] = set()

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run `work`, as no part of the operation in progress: nobody need await it."""
        with uncancelled():
            task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    async def join(self) -> None:
        """Wait for those that run."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def cancel(self) -> None:
        """Cancel those that run, and wait for them."""
        for task in self._tasks:
            task.cancel()
        await self.join()

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s failed", self._what, exc_info=error)
