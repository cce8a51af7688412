"""What is typed into guests: one at a time types into each, no faster than a serial port takes it."""

import asyncio
import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from supervisor.concurrency.progress import asked_by
from supervisor.errors import ConsoleBusyError, InvalidStateError, VmmError
from supervisor.runtime.vmms import Vmms
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord, ProcessIdentity
from supervisor.system.processes import start_time_of

BYTES_A_SECOND: Final = 11_520
"""What comes over a line of 115200 baud, ten bits a byte: as much as the guest's driver expects of one."""
PIECE_BYTES: Final = 1152
"""That may come at once; more is spread over time."""
MOST_PENDING: Final = 256 << 10
"""Bytes that may wait for a guest to read them."""


@dataclass(frozen=True)
class Console:
    """A guest's console: where it is kept, what tells of its VMM's end, and its input, where it is not only watched."""

    log: Path
    ended: "asyncio.Future[Any]"
    typing: "AbstractContextManager[ConsoleInput] | None"


class ConsoleInputs:
    """Who types into which guest."""

    def __init__(self, layout: Layout, vmms: Vmms) -> None:
        self._layout = layout
        self._vmms = vmms
        self._typists: dict[str, str] = {}

    def console(self, record: InstanceRecord, *, watch: bool) -> Console:
        """Return an instance's console; one whose VMM is not there has ended."""
        ended = self._vmms.exited(record.id)
        if ended is None:
            none: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            none.set_result(None)
            ended = none
        return Console(self._layout.console_log(record.id), ended, None if watch else self.typing(record))

    @contextlib.contextmanager
    def typing(self, record: InstanceRecord) -> Iterator["ConsoleInput"]:
        """Give the standard input of the VMM that runs an instance, to one at a time.

        Raises InvalidStateError where none runs, ConsoleBusyError where somebody types already, and VmmError where the
        VMM has no such input.
        """
        if record.process is None:
            raise InvalidStateError(
                f"{record.name}: nothing can be typed: it is {record.state}, and no VMM runs it; restore or start it"
            )
        typist = self._typists.get(record.id)
        if typist is not None:
            raise ConsoleBusyError(
                f"{record.name}: {typist} types into its console already, and one at a time may: watch it, or wait "
                "until that one has left"
            )
        descriptor = _standard_input(record.name, record.process)
        self._typists[record.id] = asked_by.get()
        try:
            yield ConsoleInput(descriptor)
        finally:
            del self._typists[record.id]
            os.close(descriptor)


class ConsoleInput:
    """The pipe that a VMM reads as its guest's serial port, and what is yet to be typed into it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._pending = bytearray()
        self._more = asyncio.Event()

    def type(self, data: bytes) -> bool:
        """Have it typed after all that was before, without waiting; False, and it is dropped, where that is too much.

        A guest may read nothing at all.
        """
        if len(self._pending) + len(data) > MOST_PENDING:
            return False
        self._pending += data
        self._more.set()
        return True

    async def pump(self) -> NoReturn:
        """Give the VMM what is typed, at a serial port's pace; raises VmmError once it has ended."""
        while True:
            await self._more.wait()
            piece = bytes(self._pending[:PIECE_BYTES])
            await self._write(piece)
            del self._pending[: len(piece)]
            if not self._pending:
                self._more.clear()
            await asyncio.sleep(len(piece) / BYTES_A_SECOND)

    async def _write(self, piece: bytes) -> None:
        while piece:
            try:
                piece = piece[os.write(self._descriptor, piece) :]
            except BlockingIOError:
                await self._until_writable()
            except BrokenPipeError as error:
                raise VmmError("the VMM has ended, and takes nothing more") from error

    async def _until_writable(self) -> None:
        loop, writable = asyncio.get_running_loop(), asyncio.Event()
        loop.add_writer(self._descriptor, writable.set)
        try:
            await writable.wait()
        finally:
            loop.remove_writer(self._descriptor)


def _standard_input(name: str, process: ProcessIdentity) -> int:
    """Return the end to write to of a VMM's standard input, which is a pipe; raises VmmError where it is none.

    It is taken out of the VMM, which outlives every supervisor and has both ends open.
    """
    path = f"/proc/{process.pid}/fd/0"
    try:
        # Before it is opened: to open a device may do something to it.
        if not stat.S_ISFIFO(os.stat(path).st_mode):  # noqa: PTH116 - no path is to be made of it
            raise OSError(errno.EINVAL, "it is no pipe")
        descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISFIFO(os.fstat(descriptor).st_mode) or start_time_of(process.pid) != process.start_time:
                raise OSError(errno.ESRCH, "the VMM has ended")
        except OSError:
            os.close(descriptor)
            raise
    except OSError as error:
        raise VmmError(
            f"{name}: nothing can be typed: the standard input of its VMM (pid {process.pid}) cannot be had: "
            f"{error.strerror}; one that an earlier version started has none: restore it anew"
        ) from error
    return descriptor
