"""Being told of what is created in a directory, such as a socket, or written to a file: inotify(7)."""

import asyncio
import contextlib
import errno
import os
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from supervisor.system.unix_sockets import listening_pid
from supervisor.system.watching import (
    EVENTS_BYTES,
    IN_CREATE,
    IN_MODIFY,
    IN_MOVED_TO,
    IN_ONLYDIR,
    add_watch,
    close_inotify,
    inotify,
)

LISTEN_RETRY: Final = 0.0005
"""Seconds between looks at a socket that is bound and does not listen yet: nothing tells when it does."""
LOOK_SECONDS: Final = 0.01
"""Seconds between looks for a socket whose creation may not be told of."""


def creations(directory: Path) -> AbstractAsyncContextManager[asyncio.Event]:
    """Give an event that is set whenever a name appears in the directory; clear it before looking.

    It is never set where the user has fs.inotify.max_user_instances or max_user_watches already. Raises OSError where
    there is no such directory.
    """
    return _watched(directory, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR)


def writes(file: Path) -> AbstractAsyncContextManager[asyncio.Event]:
    """Give an event that is set whenever the file is written; the same holds for it."""
    return _watched(file, IN_MODIFY)


@asynccontextmanager
async def _watched(path: Path, events: int) -> AsyncIterator[asyncio.Event]:
    loop = asyncio.get_running_loop()
    happened = asyncio.Event()
    try:
        fd = inotify()
    except OSError:
        yield happened
        return

    def on_readable() -> None:
        os.read(fd, EVENTS_BYTES)
        happened.set()

    try:
        try:
            add_watch(fd, path, events)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise
        loop.add_reader(fd, on_readable)
        yield happened
    finally:
        loop.remove_reader(fd)
        close_inotify(fd)


async def until_listening(path: Path, created: asyncio.Event, look: Callable[[Path], int] = listening_pid) -> int:
    """Return whose a socket at `path` is once it accepts; `created` is set when anything appears beside it.

    `look` returns that, or raises OSError; so does this, for what no waiting changes.
    """
    while True:
        created.clear()
        try:
            return look(path)
        except (ConnectionRefusedError, BlockingIOError):
            await asyncio.sleep(LISTEN_RETRY)
        except FileNotFoundError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await created.wait()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error
