"""Whether a guest is ready: looked at on its console, or asked of a port until that answers."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from supervisor.errors import BadRequestError
from supervisor.images.machine_files import own_config
from supervisor.models.readiness import Readiness, parse_readiness
from supervisor.runtime.console_searches import ConsoleSearches
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord
from supervisor.system.unix_sockets import held_socket, peer_credentials

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 1.0
"""Seconds between two attempts at a port: no event tells that a guest listens."""
ATTEMPT_SECONDS: Final = 2.0
ANSWER_BYTES: Final = 32


class ReadinessProbes:
    """Looks at guests of this host."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._consoles = ConsoleSearches()

    async def check(self, record: InstanceRecord, text: str | None) -> None:
        """Raise BadRequestError where an instance has nothing that could tell that it is ready in this way."""
        if text is not None and parse_readiness(text).kind == "vsock":
            directory = self._layout.instance(record.id)
            check_vsock(record.name, text, await asyncio.to_thread(_vsock_path, directory) is not None)

    async def until(self, record: InstanceRecord, text: str) -> None:
        """Return when the guest of an instance that runs is ready; the console is read from its present start on."""
        readiness = parse_readiness(text)
        if readiness.pattern is not None:
            console = self._layout.console_log(record.id)
            await self._consoles.until(console, record.console_offset, readiness.pattern)
        elif readiness.kind == "tcp":
            await _until_answered(lambda: _tcp_answers(readiness))
        else:
            path = await asyncio.to_thread(_vsock_path, self._layout.instance(record.id))
            await _until_answered(lambda: self._vsock_answers(record, path, readiness.port))

    async def close(self) -> None:
        """Look no more; nobody may wait."""
        await self._consoles.close()

    async def _vsock_answers(self, record: InstanceRecord, path: str | None, port: int) -> bool:
        """Ask the VMM for a port of its guest: docs/vsock.md of Firecracker, "Host-Initiated Connections"."""
        if path is None or record.process is None:
            return False
        jailed = record.jail_uid is not None
        directory = self._layout.jail_root(record.id) if jailed else self._layout.instance(record.id)
        reader, writer = await _connected(directory, path)
        try:
            # What stands there may be anybody's, if a hostile VMM has put it there.
            if jailed and peer_credentials(writer.get_extra_info("socket")).pid != record.process.pid:
                return False
            writer.write(f"CONNECT {port}\n".encode())
            answer = await reader.readuntil(b"\n")
            return len(answer) <= ANSWER_BYTES and answer.startswith(b"OK ")
        finally:
            writer.transport.abort()


def check_vsock(name: str, text: str | None, has_vsock: bool) -> None:
    """Raise BadRequestError for a vsock port of a machine without such a device."""
    if text is not None and text.startswith("vsock:") and not has_vsock:
        raise BadRequestError(
            f"{name}: readiness {text} is refused: it has no vsock; give its image's vm.json one, or wait for "
            "console:PATTERN"
        )


async def _until_answered(answers: Callable[[], Awaitable[bool]]) -> None:
    pause = FIRST_PAUSE
    while True:
        with contextlib.suppress(OSError, TimeoutError, EOFError, asyncio.LimitOverrunError):
            async with asyncio.timeout(ATTEMPT_SECONDS):
                if await answers():
                    return
        await asyncio.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)


async def _tcp_answers(readiness: Readiness) -> bool:
    _, writer = await asyncio.open_connection(readiness.address, readiness.port)
    writer.transport.abort()
    return True


async def _connected(directory: Path, name: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to a socket in a directory, whose own path may be too long for sun_path."""
    # In the loop: a thread's answer to a wait that was cancelled would be a descriptor that nobody closes.
    held = held_socket(directory, name)
    try:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            await asyncio.get_running_loop().sock_connect(connection, f"/proc/self/fd/{held}")
            return await asyncio.open_unix_connection(sock=connection)
        except BaseException:
            connection.close()
            raise
    finally:
        os.close(held)


def _vsock_path(directory: Path) -> str | None:
    config = own_config(directory)
    return config.vsock.uds_path if config is not None and config.vsock is not None else None
