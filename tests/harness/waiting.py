"""Waiting for what a program writes."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path

from watchfiles import awatch

TIMEOUT = 30.0
LOOK_AGAIN = 100
"""Milliseconds: for what was written before the watch began."""


async def until_console_says(console: Path, line: str) -> None:
    """Return when the file has this line."""
    await _until(console, lambda text: line in text.splitlines())


async def until_log_says(log: Path, words: str) -> None:
    """Return when a line of the file has these words."""
    await _until(log, lambda text: words in text)


async def _until(file: Path, condition: Callable[[str], bool]) -> None:
    async with asyncio.timeout(TIMEOUT):
        watch = awatch(
            file.parent, recursive=False, step=5, debounce=20, rust_timeout=LOOK_AGAIN, yield_on_timeout=True
        )
        while not condition(await asyncio.to_thread(file.read_text)):
            await anext(watch)
        await watch.aclose()


async def until(condition: Callable[[], bool]) -> None:
    """Return when something holds that no event tells of."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(asyncio.Event().wait(), LOOK_AGAIN / 1e4)
