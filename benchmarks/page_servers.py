"""Page servers as the benchmarks run them: over one layer, and gone with their context."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks.bench import MIB, PATIENCE, Bench
from supervisor.uffd.handle import PageServer, PageServerEvent, Policy, Recorded

PAGE_SIZE: Final = 4096
ONE_PAGE: Final = Policy(fault_around_pages=1)
"""Every fault is answered with its page and no other."""


@dataclass(frozen=True)
class Served:
    """A page server and what it announces."""

    server: PageServer
    events: "asyncio.Queue[PageServerEvent]"

    async def recorded(self) -> Recorded:
        """Wait for the end of a recording."""
        async with asyncio.timeout(PATIENCE):
            while not isinstance(event := await self.events.get(), Recorded):
                continue
        return event


@contextlib.asynccontextmanager
async def page_server(bench: Bench, name: str, layer: Path, policy: Policy) -> AsyncIterator[Served]:
    """Run a page server over one layer while the context lasts."""
    events: asyncio.Queue[PageServerEvent] = asyncio.Queue()
    with (bench.folder / f"{name}.log").open("ab") as log:
        server = await PageServer.spawn(
            template_id=name,
            layers=[layer],
            memory_size=bench.sizes.memory_mib * MIB,
            page_size=PAGE_SIZE,
            hot_pages=bench.folder / f"{name}.hot",
            control=bench.folder / f"{name}.pages",
            stderr=log.fileno(),
            policy=policy,
            on_event=events.put_nowait,
        )
    try:
        yield Served(server, events)
    finally:
        await server.stop()


def page_map(bench: Bench, fork: str) -> Path:
    """Return where a fork's page map is."""
    return bench.folder / f"{fork}.map"
