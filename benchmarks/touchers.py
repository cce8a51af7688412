"""Touchers: forks without a VM (toucher.c), which fault on what they touch as fast as they are answered."""

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import Struct
from typing import Final, Self

from benchmarks.bench import MIB, PATIENCE, Bench
from benchmarks.page_servers import PAGE_SIZE, page_map
from benchmarks.reference import end
from supervisor.runtime.attaching import listener_for
from supervisor.uffd.handle import Attached, PageServer, Prefetch

_WORD: Final = Struct("=Q")


@dataclass(frozen=True)
class Pattern:
    """Which pages are touched, in ascending order: the first `run` of every `stride`, `pages` in all."""

    pages: int
    run: int
    stride: int

    @classmethod
    def one_run(cls, pages: int) -> Self:
        """The first pages, without a gap."""
        return cls(pages, pages, pages)

    def runs(self) -> list[tuple[int, int]]:
        """The runs [start, end) of pages."""
        starts = range(0, self.pages // self.run * self.stride, self.stride)
        return [(start, start + self.run) for start in starts]


@dataclass(frozen=True)
class Touch:
    """When one toucher began and ended to touch, in nanoseconds of the monotonic clock."""

    began_ns: int
    ended_ns: int


class Touchers:
    """Some touchers that are let go at the same moment; made by `touchers`."""

    def __init__(self, processes: Sequence[asyncio.subprocess.Process], go: int) -> None:
        self._processes = processes
        self._go = go

    @property
    def pids(self) -> list[int]:
        """Their processes."""
        return [process.pid for process in self._processes]

    async def connect(self) -> None:
        """Have each make its handshake, with who listens at its socket by now."""
        os.write(self._go, b"." * len(self._processes))
        for process in self._processes:
            await _line(process, "connected")

    async def touch(self) -> tuple[int, list[Touch]]:
        """Let them touch; returns the moment in nanoseconds of the monotonic clock, and what each says.

        RuntimeError where one was given a wrong page.
        """
        now = time.monotonic_ns()
        self.close()
        said = [(await _line(process)).split() for process in self._processes]
        if any(wrong != "0" for _, _, wrong in said):
            raise RuntimeError(f"pages were not what the layer has: {said}")
        return now, [Touch(int(began), int(ended)) for began, ended, _ in said]

    def close(self) -> None:
        """Close the pipe that holds them back."""
        if self._go >= 0:
            os.close(self._go)
            self._go = -1


@contextlib.asynccontextmanager
async def touchers(bench: Bench, sockets: Sequence[Path], pattern: Pattern) -> AsyncIterator[Touchers]:
    """Start a toucher for each socket; they are killed with the context."""
    program = bench.compiled("toucher.c")
    arguments = (bench.sizes.memory_mib * MIB, pattern.pages, pattern.run, pattern.stride)
    held, go = os.pipe()
    processes: list[asyncio.subprocess.Process] = []
    started = Touchers(processes, go)
    try:
        for path in sockets:
            toucher = await asyncio.create_subprocess_exec(
                program, path, *map(str, arguments), stdin=held, stdout=asyncio.subprocess.PIPE
            )
            processes.append(toucher)
        yield started
    finally:
        os.close(held)
        started.close()
        for process in processes:
            await end(process)


@contextlib.asynccontextmanager
async def served_touchers(
    bench: Bench, server: PageServer, count: int, pattern: Pattern, prefetch: Prefetch = "off", record: bool = False
) -> AsyncIterator[tuple[Touchers, list[Attached]]]:
    """Start touchers as forks of a page server; they are connected and prefetched, and wait to touch."""
    forks = fork_names(count)
    sockets = [bench.folder / f"{fork}.uffd" for fork in forks]
    async with touchers(bench, sockets, pattern) as started:
        try:
            for fork, socket, pid in zip(forks, sockets, started.pids, strict=True):
                with listener_for(socket) as listener:
                    await server.attach(
                        fork,
                        listener=listener,
                        page_map=page_map(bench, fork),
                        vmm_pid=pid,
                        prefetch=prefetch,
                        record=record,
                    )
            await started.connect()
            yield started, [await server.served(fork) for fork in forks]
        finally:
            for fork in forks:
                await server.release(fork)
                page_map(bench, fork).unlink(missing_ok=True)
                (bench.folder / f"{fork}.uffd").unlink(missing_ok=True)


def fork_names(count: int) -> list[str]:
    """What a page server knows touchers by."""
    return [f"toucher{number}" for number in range(count)]


def write_layer(bench: Bench) -> Path:
    """Write a layer whose page N begins with the word N + 1, as a toucher expects; it is there once for all."""
    path = bench.folder / "layer"
    if not path.exists():
        filler = b"\xa5" * (PAGE_SIZE - _WORD.size)
        with path.open("wb") as file:
            for page in range(bench.sizes.memory_mib * MIB // PAGE_SIZE):
                file.write(_WORD.pack(page + 1) + filler)
    return path


async def _line(process: asyncio.subprocess.Process, expected: str | None = None) -> str:
    assert process.stdout is not None
    said = (await asyncio.wait_for(process.stdout.readline(), PATIENCE)).decode().strip()
    if not said or expected not in (None, said):
        raise RuntimeError(f"a toucher said {said!r} in place of {expected or 'its times'!r}")
    return said
