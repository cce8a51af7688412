"""Keeps the run directory as it has to be while the supervisor runs: it may lie in /tmp, or go with a login session."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Final

from supervisor.api.server import Server
from supervisor.daemon.run_directory import RunDirectory
from supervisor.errors import SupervisorError
from supervisor.host.host import Host
from supervisor.runtime.run_files import PutBackFiles

PERIOD: Final = 0.5
"""Seconds between two looks, each of which is two system calls while nothing comes or goes there."""

_log = logging.getLogger(__name__)


class Keeping:
    """Makes again what somebody has removed, and says in one alarm what is there again and what is not."""

    def __init__(self, directory: RunDirectory, server: Server, host: Host) -> None:
        self._directory = directory
        self._server = server
        self._host = host
        self._told = ""

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Look now, and every so often while the context lasts."""
        await self.look()
        task = asyncio.create_task(self._run())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(PERIOD)
            try:
                await self.look()
            except Exception:
                _log.exception("a look at the run directory failed; the next is tried all the same")

    async def look(self) -> None:
        """Put right what is not as it has to be; what cannot be is tried at the next look."""
        if not await asyncio.to_thread(self._directory.changed) and self._server.in_place:
            return
        made, failed = map(list, await asyncio.to_thread(self._directory.mend))
        if not failed and not self._server.in_place:
            try:
                await self._server.listen()
            except (OSError, SupervisorError) as error:
                failed.append(str(error))
            else:
                made.append(self._server.socket_path.name)
        files = await self._host.put_back_run_files()
        self._tell(made, failed, files)

    def _tell(self, made: list[str], failed: list[str], files: PutBackFiles) -> None:
        made, failed = [*made, *files.made], [*failed, *files.failed]
        if failed:
            self._directory.look_again()
        told = [
            f"{what}: {'; '.join(found)}"
            for what, found in (("there again", made), ("tried again", failed), ("lost for good", files.lost))
            if found
        ]
        message = f"{self._directory.path}: something was removed; {'. '.join(told)}"
        if told and (made or files.lost or message != self._told):
            self._host.report("alarm", message)
        self._told = message
