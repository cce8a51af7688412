"""Lines that are waited for on consoles: one watch for all of them, since a user has few inotify instances."""

import asyncio
import contextlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from supervisor.consoles.reading import LogReader
from supervisor.models.line_patterns import LinePattern, LineSearch
from supervisor.system.watching import Watch

LOOK_SECONDS: Final = 0.5
GATHER_SECONDS: Final = 0.02
"""A guest may print as fast as it can."""
READ: Final = 1 << 16


@dataclass(eq=False)
class _Awaited:
    """A pattern on the console at one path; two threads may look at once."""

    reader: LogReader
    search: LineSearch
    told: asyncio.Event = field(default_factory=asyncio.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def directory(self) -> Path:
        return self.reader.path.parent

    def look(self) -> bool:
        """Return whether it is there by now. Blocks on the disk; a console that cannot be read has nothing new."""
        with self.lock, contextlib.suppress(OSError):
            try:
                while not self.search.found:
                    skipped, data, anew = self.reader.read(READ)
                    if skipped or anew:
                        self.search.skip()
                    if not data:
                        break
                    self.search.feed(data)
            finally:
                self.reader.release()
        return self.search.found


class ConsoleSearches:
    """What is waited for on the consoles of this host."""

    def __init__(self) -> None:
        self._awaited: list[_Awaited] = []
        self._watch = Watch()
        self._looking: asyncio.Task[None] | None = None

    async def until(self, console: Path, position: int, pattern: LinePattern) -> None:
        """Return when the pattern is in what a console has from a position (bytes of all that was printed) on."""
        awaited = _Awaited(LogReader(console, position), LineSearch(pattern))
        self._awaited.append(awaited)
        try:
            await asyncio.to_thread(self._watch.add, awaited.directory)
            if await asyncio.to_thread(awaited.look):
                return
            if self._looking is None:
                self._looking = asyncio.create_task(self._look())
            await awaited.told.wait()
        finally:
            self._awaited.remove(awaited)
            self._watch.keep([one.directory for one in self._awaited])

    async def close(self) -> None:
        """Look no more; nobody may wait."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._watch.close()

    async def _look(self) -> None:
        try:
            while self._awaited:
                await self._watch.wait(LOOK_SECONDS, GATHER_SECONDS)
                present = tuple(self._awaited)
                for one in await asyncio.to_thread(_found, present):
                    one.told.set()
        finally:
            self._looking = None


def _found(awaited: tuple[_Awaited, ...]) -> list[_Awaited]:
    return [one for one in awaited if one.look()]
