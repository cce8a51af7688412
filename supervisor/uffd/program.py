"""The page server's process: started, until it listens."""

import asyncio
import contextlib
import os
import socket
import sys
from pathlib import Path
from typing import Final

from supervisor.concurrency.tasks import to_its_end
from supervisor.errors import PageServerError
from supervisor.system.followed_process import FollowedProcess, exit_code
from supervisor.system.isolated_python import isolated_command
from supervisor.system.log_text import one_line
from supervisor.system.oom_score import serve_on
from supervisor.system.unix_sockets import ListensAlreadyError, bound, remove_file
from supervisor.uffd.control import Configuration, encode_configuration
from supervisor.uffd.inheritance import STDIN, bequeath
from supervisor.uffd.map_files import lock_of
from supervisor.uffd.memory_image import open_layer

START_SECONDS: Final = 15.0
CONTROL_MODE: Final = 0o600
"""That of a control socket's file."""

PageServerProcess = FollowedProcess[int | None]
"""Its outcome is the exit code, negative for a signal; None for a process that an earlier supervisor had spawned."""


async def spawn(configuration: Configuration, stderr: int, whose: str) -> PageServerProcess:
    """Start a page server in a session of its own, which logs to `stderr`; it listens when this returns.

    PageServerError with the reason when it does not start, and `whose` it was to be.
    """
    who = f"page server of {whose}"
    given = _Bequest(configuration)
    try:
        # The disk may be slow, and what is opened is closed below.
        await to_its_end(asyncio.to_thread(given.open))
        # Some hundred microseconds, and in a thread a cancellation could lose the pid.
        process, stdout = _start(encode_configuration(configuration), given.channel, stderr)
    except PageServerError as error:
        raise PageServerError(f"{who} did not start: {error.message}") from error
    except OSError as error:
        raise PageServerError(f"{who} cannot start: {error.strerror}") from error
    finally:
        given.close()
    try:
        line = await _first_line(stdout)
        if line != "ready":
            reason = line.removeprefix("refused: ") or "it said nothing"
            raise PageServerError(f"{who} did not start: {reason}")
    except BaseException:
        await to_its_end(undo(process))
        # Nobody listens there, and nobody will.
        remove_file(Path(configuration.control))
        raise
    return process


def find(pid: int, start_time: int) -> PageServerProcess | None:
    """Follow a page server that runs already; None where it has ended. Raises OSError without a descriptor."""
    process = PageServerProcess.found(pid, start_time, exit_code)
    if process is not None:
        serve_on(pid)
    return process


async def undo(process: PageServerProcess) -> None:
    """End one that came to nothing: the reason for that is told, and not that it stays."""
    with contextlib.suppress(TimeoutError):
        await process.end()


class _Bequest:
    """What a page server is handed as it starts."""

    def __init__(self, configuration: Configuration) -> None:
        self.channel = -1
        """The end of a socket that is to be its standard input."""
        self._configuration = configuration
        self._opened = contextlib.ExitStack()

    def open(self) -> None:
        """Open all of it, and send it; blocks. Raises OSError and PageServerError, and `close` is due all the same."""
        control, hot_pages = Path(self._configuration.control), Path(self._configuration.hot_pages)
        way_back, theirs = (self._opened.enter_context(end) for end in socket.socketpair())
        # Before the socket is bound: that would stay.
        layers = [
            self._given(open_layer(Path(layer), self._configuration.memory_size))
            for layer in self._configuration.layers
        ]
        directory = self._given(os.open(hot_pages.parent, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC))
        try:
            listener = self._opened.enter_context(bound(control, CONTROL_MODE))
        except ListensAlreadyError as error:
            raise PageServerError(f"another page server listens at {control}") from error
        except OSError as error:
            raise PageServerError(f"cannot listen at {control}: {error.strerror}") from error
        lock = self._opened.enter_context(lock_of(control.parent))
        bequeath(way_back, (way_back.fileno(), listener.fileno(), lock, directory, *layers))
        self.channel = theirs.fileno()

    def _given(self, descriptor: int) -> int:
        self._opened.callback(os.close, descriptor)
        return descriptor

    def close(self) -> None:
        """Close this process's descriptors of it."""
        self._opened.close()


def _start(configuration: str, stdin: int, stderr: int) -> tuple[PageServerProcess, int]:
    """Start the program; also returns the read end of its stdout, a pipe. Raises OSError."""
    read_end, write_end = os.pipe()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [*isolated_command("from supervisor.uffd.page_server import main; sys.exit(main())"), configuration],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_DUP2, stdin, STDIN),
                (os.POSIX_SPAWN_DUP2, write_end, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
            ],
            setsid=True,
        )
        serve_on(pid)
        return PageServerProcess.child(pid, exit_code), read_end
    except OSError:
        os.close(read_end)
        raise
    finally:
        os.close(write_end)


async def _first_line(pipe: int) -> str:
    """The first line from a pipe, which this closes; empty when it ends, or no line came in time, or is none."""
    reader = asyncio.StreamReader()
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(pipe, "rb")
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            return one_line((await reader.readline()).decode().strip())
    except (TimeoutError, ValueError):
        return ""
    finally:
        transport.close()
