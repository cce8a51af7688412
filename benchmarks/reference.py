"""The C handler (reference_handler.c) as a process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from benchmarks.bench import MIB, PATIENCE, Bench

SOURCE: Final = "reference_handler.c"
Run = tuple[int, int]
"""Pages [start, end)."""


class ReferenceHandler:
    """One that listens for its only fork."""

    def __init__(self, process: asyncio.subprocess.Process, socket: Path) -> None:
        self.pid = process.pid
        self.socket = socket
        self._process = process

    async def prefetched(self) -> float:
        """Wait for the handshake and the end of the prefetch; returns its MiB/s."""
        length, nanoseconds = map(int, (await self._line()).split())
        return length / nanoseconds * 1e9 / MIB

    async def _line(self) -> str:
        assert self._process.stdout is not None
        return (await asyncio.wait_for(self._process.stdout.readline(), PATIENCE)).decode().strip()

    async def listens(self) -> None:
        """Return when it listens."""
        if await self._line() != "listening":
            raise RuntimeError("the C handler does not listen")


@contextlib.asynccontextmanager
async def reference_handler(bench: Bench, layer: Path, runs: Sequence[Run] = ()) -> AsyncIterator[ReferenceHandler]:
    """Start a C handler that prefetches `runs`; it is gone with the context. Skipped where there is no C compiler."""
    socket = bench.folder / "reference.uffd"
    process = await asyncio.create_subprocess_exec(
        bench.compiled(SOURCE), "serve", socket, layer, *_arguments(runs), stdout=asyncio.subprocess.PIPE
    )
    try:
        handler = ReferenceHandler(process, socket)
        await handler.listens()
        yield handler
    finally:
        await end(process)
        socket.unlink(missing_ok=True)


async def memcpy(bench: Bench, layer: Path, runs: Sequence[Run]) -> tuple[float, float]:
    """Copy the runs by memcpy; returns the MiB/s into memory that is not there yet, and into memory that is."""
    process = await asyncio.create_subprocess_exec(
        bench.compiled(SOURCE), "memcpy", layer, *_arguments(runs), stdout=asyncio.subprocess.PIPE
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), PATIENCE)
    finally:
        await end(process)
    length, absent, present = map(int, said.split())
    return length / absent * 1e9 / MIB, length / present * 1e9 / MIB


async def end(process: asyncio.subprocess.Process) -> None:
    """Kill a child, if it lives, and reap it."""
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()


def _arguments(runs: Sequence[Run]) -> list[str]:
    return [f"{start}:{end}" for start, end in runs]
