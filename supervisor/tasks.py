"""Tasks that live no longer than what they were started for."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


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
