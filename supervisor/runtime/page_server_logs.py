"""What page servers write on standard error, kept by the console holder."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

from supervisor.concurrency.tasks import Background
from supervisor.consoles.outputs import Bounded, Holding, Outputs
from supervisor.errors import PageServerError
from supervisor.store.layout import Layout
from supervisor.uffd.handle import PageServer

_STDERR: Final = 2
_BYTES: Final = 1 << 20
"""The most of a page server's log that is kept."""


class PageServerLogs:
    """One log for each template, whichever of its page servers writes it."""

    def __init__(self, layout: Layout, consoles: Holding, background: Background) -> None:
        self._layout = layout
        self._consoles = consoles
        self._background = background

    async def begin(self, template_id: str, whose: str, start: Callable[[int], Awaitable[PageServer]]) -> PageServer:
        """Return the page server that `start` starts with a descriptor as its standard error; `whose` it is to be told.

        Raises what that does, and PageServerError where there is no descriptor to be had: who replaces a lost one tries
        again then.
        """
        await self._consoles.ready()
        try:
            with self._consoles.pipes(self._outputs(template_id)) as given:
                server = await start(given.descriptors[_STDERR])
        except OSError as error:
            raise PageServerError(f"page server of {whose} cannot start: {error.strerror}") from error
        given.follow(server.pid, server.start_time)
        self._heed_end_of(server)
        return server

    def go_on(self, server: PageServer) -> None:
        """Keep what a page server writes that an earlier supervisor has started."""
        self._consoles.adopt(server.pid, server.start_time, self._outputs(server.template_id))
        self._heed_end_of(server)

    def _outputs(self, template_id: str) -> Outputs:
        return {_STDERR: Bounded(self._layout.page_server_log(template_id), _BYTES)}

    def _heed_end_of(self, server: PageServer) -> None:
        server.exited.add_done_callback(partial(self._ended, server.pid))

    def _ended(self, pid: int, exited: "asyncio.Future[int | None]") -> None:
        if not exited.cancelled():
            self._background.spawn(self._consoles.drained(pid))
