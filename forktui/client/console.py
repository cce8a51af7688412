"""A guest's console over the supervisor's WebSocket."""

import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, NamedTuple

import aiohttp

from forktui.client.api import SupervisorClient, SupervisorUnreachableError

_ENDS: Final = (
    aiohttp.WSMsgType.CLOSE,
    aiohttp.WSMsgType.CLOSING,
    aiohttp.WSMsgType.CLOSED,
    aiohttp.WSMsgType.ERROR,
)
MOST_AT_ONCE: Final = 16 << 10
"""Bytes of one message: less than the supervisor takes."""


class Skipped(NamedTuple):
    """So many bytes were printed and are not kept."""

    size: int


class Dropped(NamedTuple):
    """So many bytes were typed that the guest does not read."""

    size: int


class ConsoleConnection:
    """One connection; `position` is where in all that the guest has printed it is."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, lost: SupervisorUnreachableError) -> None:
        self._socket = socket
        self._lost = lost
        self.position = 0
        self.reason = ""
        """Why the supervisor has ended it; empty where it was lost."""

    async def printed(self) -> AsyncGenerator[bytes | Skipped | Dropped, None]:
        """Yield what the guest prints, until the supervisor ends it; SupervisorUnreachableError where it is lost."""
        while (message := await self._socket.receive()).type not in _ENDS:
            if message.type is aiohttp.WSMsgType.BINARY:
                self.position += len(message.data)
                yield message.data
            elif message.type is aiohttp.WSMsgType.TEXT:
                told = json.loads(message.data)
                self.position = int(told.get("position", self.position)) + int(told.get("skipped", 0))
                if "skipped" in told:
                    yield Skipped(int(told["skipped"]))
                if "dropped" in told:
                    yield Dropped(int(told["dropped"]))
        if message.type is not aiohttp.WSMsgType.CLOSE:
            raise self._lost
        self.reason = str(message.extra)

    async def type(self, data: bytes) -> None:
        """Send what is typed; raises SupervisorUnreachableError where it is lost."""
        try:
            for start in range(0, len(data), MOST_AT_ONCE):
                await self._socket.send_bytes(data[start : start + MOST_AT_ONCE])
        except (OSError, aiohttp.ClientError) as error:
            raise self._lost from error


@asynccontextmanager
async def open_console(
    client: SupervisorClient, reference: str, position: int | None, *, watch: bool
) -> AsyncIterator[ConsoleConnection]:
    """Give a console's connection, from a position on; raises ApiError and SupervisorUnreachableError."""
    async with client.console(reference, position, watch=watch) as socket:
        yield ConsoleConnection(socket, client.lost())
