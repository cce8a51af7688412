"""Reads a supervisor's events, makes models of them, and does nothing else.

`python -m benchmarks.stream_reader SOCKET` prints `ready` when the first has come.
"""

import asyncio
import sys
from contextlib import aclosing
from pathlib import Path

from forktui.client.api import SupervisorClient


async def read(socket: Path) -> None:
    """Read until killed."""
    async with SupervisorClient(socket) as client, aclosing(client.events()) as events:
        await anext(events)
        print("ready", flush=True)
        async for _ in events:
            pass


if __name__ == "__main__":
    asyncio.run(read(Path(sys.argv[1])))
