"""Waiting for what a program writes."""

import asyncio
from pathlib import Path

from watchfiles import awatch

TIMEOUT = 30.0
LOOK_AGAIN = 100
"""Milliseconds: for what was written before the watch began."""


async def until_console_says(console: Path, line: str) -> None:
    """Return when the file has this line."""
    async with asyncio.timeout(TIMEOUT):
        watch = awatch(console.parent, step=5, debounce=20, rust_timeout=LOOK_AGAIN, yield_on_timeout=True)
        while line not in (await asyncio.to_thread(console.read_text)).splitlines():
            await anext(watch)
        await watch.aclose()
