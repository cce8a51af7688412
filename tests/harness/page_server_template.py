"""A template for the page server's tests: its image on disk, its page server as a process, and the forks of it."""

import asyncio
import os
import random
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from supervisor.runtime.attaching import listener_for
from supervisor.uffd.confinement import Wanted
from supervisor.uffd.handle import PageServer, PageServerEvent, Policy, Prefetch
from supervisor.uffd.page_map import PageCounters, PageMapReader
from tests.harness.fork_in_miniature import TIMEOUT, Fork

MIB = 1 << 20
PAGE = 4096
PAGES = 2048
SIZE = PAGES * PAGE
CONFINED = Wanted(1_879_048_999, 1_879_048_999, strictly=True)
"""A user that no process but these page servers is."""


def random_pages(count: int, seed: int) -> bytes:
    """Pages that no other page of these tests is like."""
    return random.Random(seed).randbytes(count * PAGE)


class Template:
    """A memory image on disk, its page server, and the events that came."""

    def __init__(self, directory: Path, stack: AsyncExitStack) -> None:
        self.directory = directory
        self.expected = directory / "expected"
        self.layers: list[Path] = []
        self.own_directory = directory / "recorded"
        self.own_directory.mkdir(mode=0o700)
        self.hot_pages = self.own_directory / "hot_pages"
        self.control = directory / "control.sock"
        self.events: list[PageServerEvent] = []
        self._changed = asyncio.Event()
        self._stack = stack
        self._forks = 0
        self._server: PageServer | None = None

    def write(self, *layers: dict[int, bytes], size: int = SIZE) -> None:
        """Make the image of layers, newest first, each {first page: data}; the rest of a layer is a hole."""
        merged = bytearray(size)
        for number in reversed(range(len(layers))):
            path = self.directory / f"mem.{number}"
            with path.open("wb") as file:
                file.truncate(size)
                for page, data in layers[number].items():
                    os.pwrite(file.fileno(), data, page * PAGE)
                    merged[page * PAGE : page * PAGE + len(data)] = data
            self.layers.insert(0, path)
        self.expected.write_bytes(merged)

    async def serve(
        self, policy: Policy | None = None, *, size: int = SIZE, page_size: int = PAGE, confined: bool = True
    ) -> PageServer:
        """Start the page server, confined as root's are unless told otherwise; it is killed with the test."""
        wanted = CONFINED if confined and os.geteuid() == 0 else None
        if wanted is not None:
            os.chown(self.own_directory, wanted.uid, wanted.gid)
        with (self.directory / "log").open("ab") as log:
            server = self._server = await PageServer.spawn(
                template_id="template",
                layers=self.layers,
                memory_size=size,
                page_size=page_size,
                hot_pages=self.hot_pages,
                control=self.control,
                stderr=log.fileno(),
                policy=policy or Policy(),
                on_event=self._on_event,
                confined=wanted,
            )
        self._stack.push_async_callback(server.stop)
        return server

    async def fork(
        self,
        server: PageServer,
        fork_id: str = "",
        *,
        prefetch: Prefetch = "before_resume",
        record: bool = False,
        regions: tuple[int, ...] = (SIZE,),
        load: bool = True,
        **options: Any,
    ) -> Fork:
        """Start a fork's process, attach it, and have it load unless told otherwise."""
        self._forks += 1
        fork_id = fork_id or f"fork{self._forks}"
        listen = self.directory / f"{fork_id}.uffd"
        fork = await Fork.start(listen, self.expected, list(regions), **options)
        self._stack.push_async_callback(fork.kill)
        with listener_for(listen) as listener:
            await server.attach(
                fork_id,
                listener=listener,
                page_map=self.map(fork_id),
                vmm_pid=fork.pid,
                prefetch=prefetch,
                record=record,
            )
        if load:
            await fork.do("load", expect="sent")
        return fork

    def map(self, fork_id: str) -> Path:
        """Where a fork's page map is."""
        return self.directory / f"{fork_id}.map"

    async def counters(self, fork_id: str) -> PageCounters:
        """A fork's counters once all answers so far are in them: a guest goes on before they are."""
        await self._settle()
        with PageMapReader(self.map(fork_id)) as reader:
            return reader.counters()

    async def states(self, fork_id: str) -> bytes:
        """A fork's pages, in the same way."""
        await self._settle()
        with PageMapReader(self.map(fork_id)) as reader:
            return reader.pages()

    async def _settle(self) -> None:
        # The page server does one thing after the other.
        assert self._server is not None
        await self._server.status()

    async def event(self, wanted: Callable[[PageServerEvent], bool]) -> PageServerEvent:
        """Wait for an event, or find it among those that came."""

        async def wait() -> PageServerEvent:
            while True:
                self._changed.clear()
                for event in self.events:
                    if wanted(event):
                        return event
                await self._changed.wait()

        return await asyncio.wait_for(wait(), TIMEOUT)

    def _on_event(self, event: PageServerEvent) -> None:
        self.events.append(event)
        self._changed.set()
