"""Lines that are waited for on consoles: one watch for all of them, since a user has few inotify instances.

One thread of their own has all searches, in turns that are bounded: the event loop's threads are for verbs, and a
pattern may take long for each byte.
"""

import asyncio
import contextlib
import time
from collections import Counter, deque
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from supervisor.consoles.reading import LogReader
from supervisor.models.line_patterns import LinePattern, LineSearch
from supervisor.system.watching import Watch

LOOK_SECONDS: Final = 0.5
GATHER_SECONDS: Final = 0.02
"""A guest may print as fast as it can."""
TURN_SECONDS: Final = 0.02
"""Between two looks at the clock are READ bytes, which take the worst of patterns some 70 ms."""
READ: Final = 1 << 11


@dataclass(eq=False)
class _Awaited:
    """A pattern on the console at one path."""

    reader: LogReader
    search: LineSearch
    told: asyncio.Event = field(default_factory=asyncio.Event)
    _seen: tuple[int, int, int] | None = None
    """What the file was when it was read to its end."""

    @property
    def directory(self) -> Path:
        return self.reader.path.parent

    def look(self, until: float) -> bool:
        """Search until a moment of the monotonic clock at most; returns whether there is more to be read.

        Blocks on the disk; a console that cannot be read has nothing new.
        """
        with contextlib.suppress(OSError):
            status = self.reader.path.stat()
            now = status.st_ino, status.st_size, status.st_mtime_ns
            if now == self._seen:
                return False
            try:
                while not self.search.found:
                    if time.monotonic() > until:
                        return True
                    skipped, data, anew = self.reader.read(READ)
                    if skipped or anew:
                        self.search.skip()
                    if not data:
                        self._seen = now
                        break
                    self.search.feed(data)
            finally:
                self.reader.release()
        return False


class ConsoleSearches:
    """What is waited for on the consoles of this host."""

    def __init__(self) -> None:
        self._awaited: dict[_Awaited, None] = {}
        self._directories: Counter[Path] = Counter()
        self._watch = Watch()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="consoles")
        self._new = asyncio.Event()
        """Whether one came that was not looked at."""
        self._looking: asyncio.Task[None] | None = None

    async def until(self, console: Path, position: int, pattern: LinePattern) -> None:
        """Return when the pattern is in what a console has from a position (bytes of all that was printed) on."""
        awaited = _Awaited(LogReader(console, position), LineSearch(pattern))
        self._directories[awaited.directory] += 1
        try:
            await asyncio.to_thread(self._watch.add, awaited.directory)
            self._awaited[awaited] = None
            self._new.set()
            if self._looking is None:
                self._looking = asyncio.create_task(self._look())
            await awaited.told.wait()
        finally:
            self._awaited.pop(awaited, None)
            self._directories[awaited.directory] -= 1
            if not self._directories[awaited.directory]:
                del self._directories[awaited.directory]
                self._watch.remove(awaited.directory)

    async def close(self) -> None:
        """Look no more; nobody may wait."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._watch.close()

    async def _look(self) -> None:
        try:
            while self._awaited:
                self._new.clear()
                await self._look_at(self._awaited)
                await self._until_changed()
        finally:
            self._looking = None

    async def _look_at(self, awaited: Iterable[_Awaited]) -> None:
        """Look at each to its end, in turns; the interpreter is left to others for as long as a turn takes."""
        left = deque(awaited)
        while left:
            began = time.monotonic()
            await asyncio.get_running_loop().run_in_executor(self._thread, _turn, left)
            for one in [one for one in self._awaited if one.search.found]:
                one.told.set()
            left = deque(one for one in left if one in self._awaited)
            if left:
                await asyncio.sleep(time.monotonic() - began)

    async def _until_changed(self) -> None:
        changed = asyncio.create_task(self._watch.wait(LOOK_SECONDS, GATHER_SECONDS))
        new = asyncio.create_task(self._new.wait())
        try:
            await asyncio.wait((changed, new), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for one in (changed, new):
                one.cancel()
            await asyncio.gather(changed, new, return_exceptions=True)


def _turn(left: deque[_Awaited]) -> None:
    """Look at some, for TURN_SECONDS or so; what is not at its end comes last the next time."""
    until = time.monotonic() + TURN_SECONDS
    for _ in range(len(left)):
        if time.monotonic() > until:
            return
        one = left.popleft()
        if one.look(until):
            left.append(one)
