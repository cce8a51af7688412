"""The threads in which images are read and placed: others write there, and a mount there may not answer."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

from supervisor.concurrency.progress import done, interruptible
from supervisor.concurrency.side_threads import SideThreads
from supervisor.errors import InvalidImageError
from supervisor.images.builtin_image import PAGEWALKER
from supervisor.system.regular_files import shown

Result = TypeVar("Result")

READERS: Final = 16
READ_SECONDS: Final = 5.0
"""For which what is in images/ may keep its reader waiting: a disk's answer takes milliseconds."""
PLACERS: Final = 8
PLACE_SECONDS: Final = 120.0
"""For which no byte of a disk may be copied: the last that is done to a copy is to sync it."""
CANCELLED_SECONDS: Final = 2.0
"""For which a copy that is to end may take to copy what it is at."""


class ImageThreads:
    """Few of each kind: those that copy disks take long, and none that reads waits for them.

    What is done with the built-in image needs none of them: its files are ours.
    """

    def __init__(self) -> None:
        self._readers = SideThreads(READERS, "reading images")
        self._placers = SideThreads(PLACERS, "copying images")

    async def read(self, subject: str, work: Callable[[], Result]) -> Result:
        """Return what `work` reads; raises what it raises, and TimeoutError in words."""
        return await self._readers.run(subject, READ_SECONDS, work)

    async def read_image(self, name: str, work: Callable[[], Result]) -> Result:
        """Do the same with that image; raises InvalidImageError where it does not answer."""
        if name == PAGEWALKER:
            return await asyncio.to_thread(work)
        try:
            return await self.read(f"image {shown(name)}", work)
        except TimeoutError as error:
            raise InvalidImageError(f"image {shown(name)}: its files cannot be read: {error}") from error

    async def place(self, name: str, work: Callable[[], None]) -> None:
        """Have an image's files put into the directory of an instance; raises as `read_image`, and what `work` raises.

        Where the operation in progress is cancelled `work` looks for that, and is waited for where it answers.
        """
        try:
            await self.write(name, work)
        except TimeoutError as error:
            raise InvalidImageError(f"image {name}: its files cannot be copied: {error}") from error

    async def write(self, name: str, work: Callable[[], None]) -> None:
        """Do the same for an image that is made; raises TimeoutError in words."""
        if name == PAGEWALKER:
            placing = asyncio.to_thread(work)
        else:
            placing = self._placers.run(f"image {name}", PLACE_SECONDS, work, done)
        task = asyncio.create_task(placing)
        try:
            with interruptible():
                await asyncio.wait((task,))
        except BaseException:
            await asyncio.wait((task,), timeout=CANCELLED_SECONDS)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise
        task.result()
