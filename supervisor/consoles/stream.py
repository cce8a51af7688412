"""One pipe that a VMM or a page server writes to, copied to its file; standard library only."""

import os
from collections.abc import Callable

from supervisor.consoles.bounded_file import BoundedFile
from supervisor.system.loop import Loop

READ_BYTES = 256 << 10
"""More than a pipe has at a time."""
REST_SECONDS = 0.005
"""Between two reads of a pipe: a guest that prints byte by byte is not woken up for at each, one that prints without
end is held back to READ_BYTES in this time, and all others have their turn."""
RETRY_SECONDS = 1.0
"""Between two tries to watch a pipe that the kernel has no room to watch."""


PipeId = tuple[int, int]
"""Device and inode of a pipe or a FIFO, which no other one has while it is held."""


def pipe_id(descriptor: int) -> PipeId:
    """Return what tells an open pipe from any other."""
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


class Stream:
    """A pipe's read end, which is its own from here on."""

    def __init__(
        self,
        loop: Loop,
        descriptor: int,
        file: BoundedFile,
        on_written: Callable[[BoundedFile], None],
        on_end: Callable[["Stream"], None],
    ) -> None:
        """Raises OSError where it cannot be watched."""
        os.set_blocking(descriptor, False)
        self.pipe = pipe_id(descriptor)
        self.file = file
        self._loop = loop
        self._descriptor = descriptor
        self._on_written = on_written
        self._on_end = on_end
        self._watch()

    def _watch(self) -> None:
        self._loop.watch(self._descriptor, self._on_ready)

    def _go_on(self) -> None:
        try:
            self._watch()
        except OSError:
            # Another process of this user has taken its place among those that the kernel has room for.
            self._loop.call_later(RETRY_SECONDS, self._go_on)

    def _on_ready(self) -> None:
        try:
            data = os.read(self._descriptor, READ_BYTES)
        except BlockingIOError:
            return
        self._loop.unwatch(self._descriptor)
        if data:
            self.file.write(data)
            self._on_written(self.file)
            self._loop.call_later(REST_SECONDS, self._go_on)
            return
        # All that wrote to it have ended.
        os.close(self._descriptor)
        self._on_end(self)
