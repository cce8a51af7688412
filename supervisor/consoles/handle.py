"""The supervisor's handle on a console holder: spawn one or find one again, hand it pipes, hear what was dropped."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from supervisor.consoles import program
from supervisor.consoles.outputs import Bounded
from supervisor.consoles.program import HolderProcess
from supervisor.errors import ConsoleHolderError
from supervisor.system.control_connection import Connection, Streams, open_streams
from supervisor.system.followed_process import OfProcess

DRAIN_SECONDS: Final = 1.0
"""For which an end waits until what was written before it is in its file."""
_LEAVE_SECONDS: Final = 3.0


class Dropped(NamedTuple):
    """Bytes of a log could not be written; none, once it is written again."""

    path: Path
    size: int
    reason: str


class Failed(NamedTuple):
    """The holder is about to end."""

    reason: str


HolderEvent = Dropped | Failed


class ConsoleHolder(OfProcess[int | None]):
    """One holder, and the connection to it; made by `spawn` or `connect`."""

    def __init__(self, process: HolderProcess, streams: Streams, on_event: Callable[[HolderEvent], None]) -> None:
        super().__init__(process)
        self._connection = Connection(
            _who(process), streams, lambda event: on_event(_decode_event(event)), ConsoleHolderError
        )
        process.exited.add_done_callback(self._on_exit)

    @classmethod
    async def spawn(cls, data_dir: Path, control: Path, on_event: Callable[[HolderEvent], None]) -> Self:
        """Start a holder; it can be handed pipes when this returns. Raises ConsoleHolderError."""
        try:
            process, connection = program.spawn(data_dir, control)
        except OSError as error:
            raise ConsoleHolderError(f"no console holder can be started: {error.strerror}") from error
        try:
            connection.setblocking(False)
            return cls(process, Streams(*await asyncio.open_unix_connection(sock=connection)), on_event)
        except BaseException:
            connection.close()
            process.kill()
            raise

    @classmethod
    async def connect(cls, control: Path, pid: int, start_time: int, on_event: Callable[[HolderEvent], None]) -> Self:
        """Find a holder that runs already; ConsoleHolderError where it is not that one, or no more."""
        try:
            process = program.find(pid, start_time)
        except OSError as error:
            raise ConsoleHolderError(f"console holder, pid {pid}, cannot be followed: {error.strerror}") from error
        if process is None:
            raise ConsoleHolderError(f"console holder, pid {pid}, is not alive, or another process has its pid")
        try:
            return cls(process, await open_streams(_who(process), control, pid, ConsoleHolderError), on_event)
        except BaseException:
            process.disconnect()
            raise

    def hold(self, log: Bounded, reader: int) -> "asyncio.Future[None]":
        """Have a pipe copied to a log, without waiting; raises ConsoleHolderError where it cannot be told now.

        Returns whether it is, once that is known: a ConsoleHolderError says why not.
        """
        return self._connection.post("hold", (reader,), path=str(log.path.absolute()), most_bytes=log.most_bytes)

    async def drained(self, paths: list[Path]) -> None:
        """Return when nothing more comes for these logs; ConsoleHolderError after DRAIN_SECONDS."""
        asked = {"paths": [str(path.absolute()) for path in paths], "most_seconds": DRAIN_SECONDS}
        await self._connection.request("drained", DRAIN_SECONDS, **asked)

    async def put_back(self) -> bool:
        """Have its control socket where it belongs; returns whether that was to be done."""
        return bool(await self._connection.request("put_back"))

    async def ping(self, *, seconds: float) -> None:
        """Return when it has answered; ConsoleHolderError when it has not after `seconds`."""
        await self._connection.request("ping", seconds)

    def kill(self) -> None:
        """End it with SIGKILL, without waiting; `exited` tells when it is gone."""
        self._process.kill()

    async def leave(self) -> None:
        """Let go of it: it goes on while it has pipes, and has ended when this returns if it has none."""
        with contextlib.suppress(ConsoleHolderError):
            if not await self._connection.request("leave", _LEAVE_SECONDS):
                await asyncio.wait([self.exited], timeout=_LEAVE_SECONDS)
        self._process.disconnect()
        self._connection.close("was disconnected from")
        await self._connection.wait_closed()

    def _on_exit(self, exited: "asyncio.Future[int | None]") -> None:
        if not exited.cancelled():
            self._connection.close("has exited")


def _who(process: HolderProcess) -> str:
    return f"console holder, pid {process.pid},"


def _decode_event(message: dict[str, Any]) -> HolderEvent:
    if message["event"] == "Failed":
        return Failed(str(message["reason"]))
    return Dropped(Path(message["path"]), int(message["bytes"]), str(message["reason"]))
