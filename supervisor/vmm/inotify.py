"""Being told of what is created in a directory, such as a socket, or written to a file: inotify(7), by ctypes."""

import asyncio
import ctypes
import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Final

from supervisor.system.unix_sockets import listening_pid

# include/uapi/linux/inotify.h
IN_MODIFY: Final = 0x2
IN_MOVED_TO: Final = 0x80
IN_CREATE: Final = 0x100
IN_ONLYDIR: Final = 0x01000000

EVENTS_BYTES: Final = 65536
LISTEN_RETRY: Final = 0.0005
"""Seconds between looks at a socket that is bound and does not listen yet: nothing tells when it does."""

_libc: Final = ctypes.CDLL(None, use_errno=True)


def creations(directory: Path) -> AbstractAsyncContextManager[asyncio.Event]:
    """Give an event that is set whenever a name appears in the directory; clear it before looking.

    Raises OSError: EMFILE where the user has fs.inotify.max_user_instances of these already.
    """
    return _watched(directory, IN_CREATE | IN_MOVED_TO | IN_ONLYDIR)


def writes(file: Path) -> AbstractAsyncContextManager[asyncio.Event]:
    """Give an event that is set whenever the file is written; the same holds for it."""
    return _watched(file, IN_MODIFY)


@asynccontextmanager
async def _watched(path: Path, events: int) -> AsyncIterator[asyncio.Event]:
    loop = asyncio.get_running_loop()
    happened = asyncio.Event()
    fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), path)

    def on_readable() -> None:
        os.read(fd, EVENTS_BYTES)
        happened.set()

    try:
        _checked(_libc.inotify_add_watch(fd, os.fsencode(path), events), path)
        loop.add_reader(fd, on_readable)
        yield happened
    finally:
        loop.remove_reader(fd)
        # Closing waits for a grace period of the kernel (fsnotify_destroy_group), some 10 ms: not in the loop's thread.
        loop.run_in_executor(None, os.close, fd)


async def until_listening(path: Path, created: asyncio.Event) -> int:
    """Return whose a socket at `path` is once it accepts; `created` is set when anything appears beside it.

    Raises OSError.
    """
    while True:
        created.clear()
        try:
            return listening_pid(path)
        except (ConnectionRefusedError, BlockingIOError):
            await asyncio.sleep(LISTEN_RETRY)
        except FileNotFoundError:
            await created.wait()
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(path)) from error


def _checked(result: int, path: Path) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return result
