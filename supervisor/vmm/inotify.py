"""Being told that something was created in a directory: inotify(7), by ctypes."""

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

# include/uapi/linux/inotify.h
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_ONLYDIR: Final = 0x01000000

EVENTS_BYTES: Final = 65536

_libc: Final = ctypes.CDLL(None, use_errno=True)


@asynccontextmanager
async def creations(directory: Path) -> AsyncIterator[asyncio.Event]:
    """Yield an event that is set whenever a name appears in the directory; clear it before looking.

    Raises OSError: EMFILE where the user has fs.inotify.max_user_instances of these already.
    """
    loop = asyncio.get_running_loop()
    created = asyncio.Event()
    fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), directory)

    def on_readable() -> None:
        os.read(fd, EVENTS_BYTES)
        created.set()

    try:
        _checked(_libc.inotify_add_watch(fd, os.fsencode(directory), IN_CREATE | IN_MOVED_TO | IN_ONLYDIR), directory)
        loop.add_reader(fd, on_readable)
        yield created
    finally:
        loop.remove_reader(fd)
        # Closing waits for a grace period of the kernel (fsnotify_destroy_group), some 10 ms: not in the loop's thread.
        loop.run_in_executor(None, os.close, fd)


def _checked(result: int, directory: Path) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(directory))
    return result
