"""What a VMM writes, in plain files without bounds: for tests and benchmarks that start no console holder."""

import contextlib
import os
from collections.abc import Iterator

from supervisor.consoles.outputs import NO_FIFOS, Fifos, Given, Outputs


class PlainOutputs:
    """Stands for who holds consoles."""

    console_bytes = 1 << 20

    async def ready(self) -> None:
        """Nothing is to be started."""

    @contextlib.contextmanager
    def pipes(self, outputs: Outputs, fifos: Fifos = NO_FIFOS) -> Iterator[Given]:
        """Give a process the files themselves."""
        with contextlib.ExitStack() as stack:
            descriptors = {}
            for number, log in outputs.items():
                fd = os.open(log.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o640)
                descriptors[number] = fd
                stack.callback(os.close, fd)
            yield Given(descriptors, lambda pid, start_time: None)

    def adopt(self, pid: int, start_time: int, outputs: Outputs) -> None:
        """It has its files."""

    async def drained(self, pid: int) -> None:
        """All is in its files."""


PLAIN = PlainOutputs()
