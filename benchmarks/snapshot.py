"""A pagewalker's snapshot, and forks that load it: the VMM driver and the page server without a supervisor."""

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from benchmarks.bench import PATIENCE, Bench
from benchmarks.page_servers import page_map
from supervisor.concurrency.tasks import beside
from supervisor.images.boot_image import load_image, prepare
from supervisor.runtime.attaching import listener_for
from supervisor.store.layout import VM_JSON
from supervisor.uffd.handle import PageServer, Prefetch
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor
from supervisor.vmm.inotify import writes
from supervisor.vmm.logs import CONSOLE_LOG
from supervisor.vmm.quarters import InDirectory
from tests.harness.plain_outputs import PLAIN

PASSES = 2
"""Passes that every guest makes before it halts: so many verified walks are timed, and what is left of a fork idles."""


@dataclass(frozen=True)
class Snapshot:
    """The files of a Standby VM; absolute paths."""

    hypervisor: Hypervisor
    state: Path
    memory: Path


@dataclass(frozen=True)
class Backing:
    """Where a fork has its memory from: a page server, who listens at `socket`, or the mem-file, mapped by its VMM."""

    server: PageServer | None = None
    socket: Path | None = None
    prefetch: Prefetch = "off"
    record: bool = False


class Console:
    """What a guest prints, told as it is printed; made by `open`."""

    def __init__(self, file: BinaryIO, written: asyncio.Event) -> None:
        self._file = file
        self._written = written
        self._unfinished = b""

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls, directory: Path) -> "AsyncIterator[Console]":
        """Make the console log in a VMM's directory, before the VMM."""
        path = directory / CONSOLE_LOG
        path.touch()
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
            async with writes(path) as written:
                yield cls(file, written)

    async def until(self, *lines: str) -> None:
        """Return when the guest has printed all of these lines in this order; RuntimeError where it found an error."""
        async with asyncio.timeout(PATIENCE):
            for line in lines:
                while (said := (await self._next()).decode().strip()) != line:
                    if said.startswith(("CORRUPT", "error")):
                        raise RuntimeError(f"the guest printed {said!r} before {line!r}")

    async def _next(self) -> bytes:
        while True:
            self._written.clear()
            self._unfinished += self._file.readline()
            if self._unfinished.endswith(b"\n"):
                line, self._unfinished = self._unfinished, b""
                return line
            await self._written.wait()


class Fork:
    """A VMM without a VM yet, and what is to be loaded into it; made by `fork`."""

    def __init__(self, bench: Bench, name: str, snapshot: Snapshot, backing: Backing, vmm: Vmm, console: Console):
        self.vmm = vmm
        self.console = console
        self._bench = bench
        self._name = name
        self._snapshot = snapshot
        self._backing = backing

    async def run(self) -> None:
        """Load the snapshot and let the guest run, as the supervisor does."""
        state, memory = str(self._snapshot.state), str(self._snapshot.memory)
        backing, server = self._backing, self._backing.server
        if backing.socket is not None:
            await self.vmm.api.load_snapshot(state, "Uffd", str(backing.socket), resume=True)
            return
        if server is None:
            await self.vmm.api.load_snapshot(state, "File", memory, resume=True)
            return
        paused = backing.prefetch == "before_resume"
        async with beside(server.served(self._name)) as served:
            listen = str(_uffd_socket(self._bench, self._name))
            await self.vmm.api.load_snapshot(state, "Uffd", listen, resume=not paused)
            await served
        if paused:
            await self.vmm.api.resume()

    async def walked(self) -> float:
        """Return when the guest has noticed its restore and ended all its walks; gives when the first of them ended.

        That is by time.perf_counter().
        """
        await self.console.until("restored", "pass 1")
        first = time.perf_counter()
        await self.console.until(f"pass {PASSES}")
        return first


@contextlib.asynccontextmanager
async def fork(bench: Bench, name: str, snapshot: Snapshot, backing: Backing) -> AsyncIterator[Fork]:
    """Spawn a VMM for a fork, attached to its page server; it and its files are gone with the context."""

    async def attach(vmm_pid: int) -> None:
        if backing.server is not None:
            with listener_for(_uffd_socket(bench, name)) as listener:
                await backing.server.attach(
                    name,
                    listener=listener,
                    page_map=page_map(bench, name),
                    vmm_pid=vmm_pid,
                    prefetch=backing.prefetch,
                    record=backing.record,
                )

    async with _vmm(bench, name, snapshot.hypervisor, meanwhile=attach) as (vmm, console):
        try:
            yield Fork(bench, name, snapshot, backing, vmm, console)
        finally:
            if backing.server is not None:
                await backing.server.release(name)
            page_map(bench, name).unlink(missing_ok=True)
            _uffd_socket(bench, name).unlink(missing_ok=True)


async def take_snapshot(bench: Bench, name: str, hypervisor: Hypervisor, hot_mib: int) -> Snapshot:
    """Boot a pagewalker and take its snapshot when it has halted: each fork then begins at the same instruction."""
    directory = bench.directory(name)
    words = (f"hot_mib={hot_mib}", f"passes={PASSES}")
    image = load_image(bench.folder, "pagewalker")
    prepare(image, directory, memory_mib=bench.sizes.memory_mib, vcpus=1, boot_args_extra=words)
    async with _vmm(bench, f"{name}-source", hypervisor, directory) as (vmm, console):
        await console.until("done")
        await vmm.api.pause()
        await vmm.api.create_snapshot("state", "memory")
    return Snapshot(hypervisor, directory / "state", directory / "memory")


def _uffd_socket(bench: Bench, name: str) -> Path:
    return bench.folder / f"{name}.uffd"


@contextlib.asynccontextmanager
async def _vmm(
    bench: Bench,
    name: str,
    hypervisor: Hypervisor,
    boot: Path | None = None,
    meanwhile: Callable[[int], Coroutine[Any, Any, None]] | None = None,
) -> AsyncIterator[tuple[Vmm, Console]]:
    """Spawn a VMM, with the VM of the directory `boot` or without one."""
    directory = boot or bench.directory(name)
    try:
        async with Console.open(directory) as console:
            vmm = await Vmm.spawn(
                hypervisor,
                instance_id=name,
                quarters=InDirectory(directory, bench.folder / f"{name}.sock"),
                config_file=VM_JSON if boot else None,
                consoles=PLAIN,
                meanwhile=meanwhile,
            )
            try:
                yield vmm, console
            finally:
                await vmm.terminate()
    finally:
        if boot is None:
            shutil.rmtree(directory)
