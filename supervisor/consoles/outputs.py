"""The pipes that VMMs and page servers write to, and have as standard input.

Whoever writes to such a pipe has it open for reading as well: without a holder nobody is ended by SIGPIPE, what is in
the pipe stays there, and the next holder takes the pipe out of the process. What prints more than a pipe has room for
waits until then, where it does not do without, as Firecracker does (set_stdout_nonblocking in its builder), and page
servers. Lost with a holder is what it had read and not written yet, at most a READ_BYTES of each pipe; and what is in
the pipe of a process that ends before the next holder has it: nobody has the pipe open then.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

from supervisor.system.processes import start_time_of

PIPE_BYTES = 256 << 10
"""What Firecracker may print before a holder that died is replaced: some half second of a serial port's pace."""
_INPUT_BYTES = 4096


class Bounded(NamedTuple):
    """A log, and the most bytes of it that are kept."""

    path: Path
    most_bytes: int


Outputs = Mapping[int, Bounded]
"""Where what a process writes to its descriptor of this number is kept."""
Fifos = Mapping[int, Path]
"""What of these is to be a FIFO that is there already, which the process opens by its name as well."""
NO_FIFOS: Fifos = {}


@dataclass(frozen=True)
class Given:
    """The pipes of a process that is about to be started."""

    descriptors: Mapping[int, int]
    """What it is to have as its descriptor of this number."""
    follow: Callable[[int, int], None]
    """To be called with its pid and start time: its pipes are taken out of it where the holder has died."""


class Holding(Protocol):
    """Who has pipes copied to files."""

    console_bytes: int
    """The most of a console that is kept."""

    async def ready(self) -> None:
        """Return when there is a holder; where none can be started, that is tried again without a word here."""

    def pipes(self, outputs: Outputs, fifos: Fifos = NO_FIFOS) -> AbstractContextManager[Given]:
        """Give a process pipes; once it has inherited them, the context may end. Raises OSError."""

    def adopt(self, pid: int, start_time: int, outputs: Outputs) -> None:
        """Have the pipes of a process copied that runs already."""

    async def drained(self, pid: int) -> None:
        """Return when all is in its files that a process has written which has ended; bounded."""


def output_pipe(fifo: Path | None = None) -> tuple[int, int]:
    """Return the read end of a new pipe, or of a FIFO, and what a process is to write to; raises OSError."""
    if fifo is None:
        reader, writer = os.pipe()
    else:
        reader = writer = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        both = os.open(f"/proc/self/fd/{writer}", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        os.close(reader)
        raise
    finally:
        if writer != reader:
            os.close(writer)
    # One user's pipes may have some 16,000 pages together: pipe(7).
    with contextlib.suppress(OSError):
        fcntl.fcntl(both, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return reader, both


@contextlib.contextmanager
def input_pipe() -> Iterator[int]:
    """Give a standard input in which nothing comes, and no end: whoever has it holds both ends. Raises OSError."""
    reader, writer = os.pipe()
    try:
        both = os.open(f"/proc/self/fd/{reader}", os.O_RDWR | os.O_CLOEXEC)
    finally:
        os.close(reader)
        os.close(writer)
    try:
        with contextlib.suppress(OSError):
            fcntl.fcntl(both, fcntl.F_SETPIPE_SZ, _INPUT_BYTES)
        yield both
    finally:
        os.close(both)


def take(pid: int, start_time: int, descriptor: int) -> int:
    """Return a read end of the pipe that a process has as `descriptor`; raises OSError where it has none there."""
    # Looked at before it is opened, and the same is opened then: to open a device may do something to it.
    held = os.open(f"/proc/{pid}/fd/{descriptor}", os.O_PATH | os.O_CLOEXEC)
    try:
        if not stat.S_ISFIFO(os.fstat(held).st_mode):
            raise OSError(errno.EINVAL, "it is no pipe")
        if start_time_of(pid) != start_time:
            raise OSError(errno.ESRCH, "the process has ended")
        return os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(held)
