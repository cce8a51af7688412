"""What is done with a page server, and no longer than that lives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from supervisor.concurrency.interruption import Interruption
from supervisor.errors import PageServerError, VmmError
from supervisor.system.followed_process import EXIT_NOTICE
from supervisor.uffd.handle import PageServer


class PageServerLostError(PageServerError):
    """The page server ended while it was needed; another one can be had."""


@contextlib.asynccontextmanager
async def while_serving(server: PageServer) -> AsyncIterator[None]:
    """Run the body, which needs a page server, no longer than that lives; PageServerLostError when it died."""

    def lost() -> PageServerLostError:
        return PageServerLostError(f"the page server (pid {server.pid}) died while a fork was loaded")

    interruption = Interruption(lost)

    def fire(_: "asyncio.Future[int | None]") -> None:
        interruption.fire()

    try:
        with interruption:
            server.exited.add_done_callback(fire)
            try:
                yield
            finally:
                server.exited.remove_done_callback(fire)
    except PageServerLostError:
        raise
    except (PageServerError, VmmError) as error:
        # Its end may be the reason, and is then about to be known.
        await asyncio.wait((server.exited,), timeout=EXIT_NOTICE)
        if not server.exited.done():
            raise
        raise lost() from error
