"""The page server's process: started, until it listens."""

import asyncio
import contextlib
import os
import sys
from typing import Final

from supervisor.concurrency.tasks import to_its_end
from supervisor.errors import PageServerError
from supervisor.system.followed_process import FollowedProcess, exit_code
from supervisor.system.isolated_python import isolated_command
from supervisor.system.log_text import one_line
from supervisor.system.oom_score import serve_on
from supervisor.uffd.control import Configuration, encode_configuration

START_SECONDS: Final = 15.0

PageServerProcess = FollowedProcess[int | None]
"""Its outcome is the exit code, negative for a signal; None for a process that an earlier supervisor had spawned."""


async def spawn(configuration: Configuration, stderr: int, whose: str) -> PageServerProcess:
    """Start a page server in a session of its own, which logs to `stderr`; it listens when this returns.

    PageServerError with the reason when it does not start, and `whose` it was to be.
    """
    who = f"page server of {whose}"
    try:
        # Some hundred microseconds, and in a thread a cancellation could lose the pid.
        process, stdout = _start(encode_configuration(configuration), stderr)
    except OSError as error:
        raise PageServerError(f"{who} cannot start: {error.strerror}") from error
    try:
        line = await _first_line(stdout)
        if line != "ready":
            reason = line.removeprefix("refused: ") or "it said nothing"
            raise PageServerError(f"{who} did not start: {reason}")
    except BaseException:
        await to_its_end(undo(process))
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


def _start(configuration: str, stderr: int) -> tuple[PageServerProcess, int]:
    """Start the program; also returns the read end of its stdout, a pipe. Raises OSError."""
    read_end, write_end = os.pipe()
    try:
        pid = os.posix_spawn(
            sys.executable,
            [*isolated_command("from supervisor.uffd.page_server import main; sys.exit(main())"), configuration],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
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
