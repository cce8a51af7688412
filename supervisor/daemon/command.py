"""The supervisor's command line, and its life from the first record read to the last stream closed."""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Final

from supervisor.api.connection_limits import ConnectionLimits
from supervisor.api.server import serve
from supervisor.daemon.directories import RefusedError, claim
from supervisor.daemon.ending import Ending
from supervisor.daemon.keeping import Keeping
from supervisor.daemon.log import log_to
from supervisor.daemon.run_directory import RunDirectory
from supervisor.daemon.startup_priority import StartupPriority
from supervisor.errors import SupervisorError
from supervisor.host.host import Host
from supervisor.programs import CommandLine, flush_or_discard, say
from supervisor.settings import SUPERVISOR_OPTIONS, Settings, SettingsError, add_options, load_settings
from supervisor.system import oom_score
from supervisor.system.descriptors import raise_limit
from supervisor.system.last_words import escape_tracebacks
from supervisor.system.log_text import one_line

UMASK: Final = 0o027
"""What is made without a word of its mode is so whatever the umask was: its owner's, and its group may look."""
FAILED: Final = 1
USAGE: Final = 2
FIRST_SECONDS: Final = 2.0
"""For which a supervisor that answers still goes first: lost page servers are replaced, and clients come back."""


def run(arguments: Sequence[str] | None, priority: StartupPriority) -> int:
    """Run the supervisor; return 0 where it was asked to stop, 1 where it failed, 2 where an option is wrong.

    It goes first until the socket answers and the tree is as it was, and a little longer than that.
    """
    try:
        settings = load_settings(_parse(arguments))
    except SettingsError as error:
        return _fail(str(error), USAGE)
    escape_tracebacks()
    os.umask(UMASK)
    try:
        with claim(settings) as run_directory:
            log_to(settings)
            raise_limit()
            oom_score.protect()
            asyncio.run(_run(settings, run_directory, priority))
    except (RefusedError, SupervisorError) as error:
        return _fail(str(error), FAILED)
    except OSError as error:
        return _fail(f"{error.filename or settings.socket_path}: {error.strerror or error}", FAILED)
    return 0


def _parse(arguments: Sequence[str] | None) -> dict[str, object]:
    parser = CommandLine(
        prog="forktui-supervisor",
        description="Own microVMs, fork them and serve their memory; print 'ready SOCKET' when it answers there.",
        epilog="Every option is also a FORKTUI_* variable (FORKTUI_DATA_DIR) and a key in the TOML file (data_dir).",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {metadata.version('forktui')}")
    add_options(parser, SUPERVISOR_OPTIONS)
    return vars(parser.parse_args(arguments))


async def _run(settings: Settings, run_directory: RunDirectory, priority: StartupPriority) -> None:
    """Serve until SIGTERM, SIGINT or SIGHUP."""
    ending = Ending()
    host = await Host.open(settings)
    try:
        server = await serve(host, settings.socket_path, _limits(settings))
        try:
            async with Keeping(run_directory, server, host).going_on():
                _announce(settings.socket_path)
                # Not before: of one that does not start the reason is all that is said.
                oom_score.tell()
                priority.spare_children()
                host.go_on()
                asyncio.get_running_loop().call_later(FIRST_SECONDS, priority.end)
                await ending.asked()
        finally:
            server.refuse()
            await host.end_verbs()
            await server.close()
    finally:
        await host.close()


def _limits(settings: Settings) -> ConnectionLimits:
    return ConnectionLimits(settings.max_connections, settings.max_connections_of_user)


def _announce(socket_path: Path) -> None:
    """Say on standard output that the socket answers; whoever waits for it may have gone, which stops nothing."""
    try:
        print(f"ready {one_line(str(socket_path))}", flush=True)
    except OSError as error:
        flush_or_discard(sys.stdout)
        logging.getLogger(__name__).warning("nobody is told on standard output: %s", error)


def _fail(message: str, code: int) -> int:
    say(f"forktui-supervisor: {' '.join(message.split())}")
    return code
