"""`forktui`: the dashboard, the demo, and every verb of the supervisor as a command."""

import argparse
import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any, Final

from forktui.cli.command import Command, UsageError
from forktui.cli.commands import COMMANDS
from forktui.cli.printing import complain
from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.client.private_supervisor import NotStartedError, listens, private_supervisor
from forktui.demo.interrupts import woken_by_signals
from forktui.demo.scenario import ScenarioError
from forktui.text.remedies import in_commands
from forktui.tui import terminal
from forktui.tui.attachment import PRIVATE
from supervisor.programs import FAILED, READER_GONE, CommandLine
from supervisor.settings import Settings, SettingsError, add_options, load_settings
from supervisor.system.log_records import Formatter

DONE: Final = 0
USAGE: Final = 2
CLIENT_OPTIONS: Final = ("socket", "run_dir", "supervisor_user", "config", "read_only")
DASHBOARD_OPTIONS: Final = ("no_mouse",)
DEMO_OPTIONS: Final = (
    "forks",
    "hypervisor",
    "headless",
    "json_output",
    "data_dir",
    "firecracker",
    "config",
    "no_mouse",
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 where it is done, 1 where it failed, 2 where it was not understood."""
    _escape_what_libraries_log()
    options = parser().parse_args(arguments)
    try:
        settings = load_settings({name: getattr(options, name) for name in Settings.model_fields if name in options})
        return _run(options, settings)
    except (SettingsError, UsageError) as error:
        complain(str(error))
        return USAGE
    except (ApiError, SupervisorUnreachableError) as error:
        complain(in_commands(error))
    except (NotStartedError, ScenarioError) as error:
        complain(str(error))
    except BrokenPipeError:
        # Whoever read standard output has gone, and wants to hear no more.
        return READER_GONE
    except OSError as error:
        complain(str(error))
    except KeyboardInterrupt:
        complain("interrupted")
    return FAILED


def _escape_what_libraries_log() -> None:
    """Let no text of others reach the terminal as it is where a library says what is wrong."""
    # Not by a handler of our own, which would write where the dashboard draws: this one writes where Textual lets it.
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(Formatter())


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser; `command` is None, "demo", or one of COMMANDS."""
    top = CommandLine(
        prog="forktui",
        description="Watch the microVMs of a host and fork them. Without a command: the dashboard, on the supervisor "
        "that listens, or on a private one where none does.",
        epilog="Every option is also a FORKTUI_* variable (FORKTUI_SOCKET) and a key in the TOML file (socket). "
        "Exit codes: 0 done, 1 failed, 2 usage.",
    )
    top.add_argument("--version", action="version", version=f"%(prog)s {metadata.version('forktui')}")
    top.set_defaults(command=None)
    add_options(top, (*CLIENT_OPTIONS, *DASHBOARD_OPTIONS))
    commands = top.add_subparsers(title="commands", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        given=top.given,
        help="show a fan-out on a temporary host of its own",
        description="Show a fan-out on a temporary host of its own. With --data-dir its instances stay there, stopped.",
    )
    demo.set_defaults(command="demo")
    add_options(demo, DEMO_OPTIONS)
    for command in COMMANDS:
        _add_command(commands, command, top.given)
    return top


def _add_command(commands: Any, command: Command, given: dict[str, object]) -> None:
    own = commands.add_parser(command.name, given=given, help=command.help, description=command.help)
    if command.nested:
        below = own.add_subparsers(title="commands", metavar="COMMAND", required=True)
        for one in command.nested:
            _add_command(below, one, given)
        return
    own.set_defaults(command=command)
    add_options(own, (*CLIENT_OPTIONS, *command.options))
    command.arguments(own)


def _run(options: argparse.Namespace, settings: Settings) -> int:
    draws = options.command is None or (options.command == "demo" and not settings.headless)
    if draws and (refusal := terminal.refusal_here()):
        complain(refusal)
        return USAGE
    if options.command is None:
        return _dashboard(settings)
    if options.command == "demo":
        return _demo(options, settings)
    return DONE if asyncio.run(_verb(options.command, options, settings)) else FAILED


def _demo(options: argparse.Namespace, settings: Settings) -> int:
    """Play the demo in places of its own: what is configured for a supervisor is not the demo's."""
    from forktui.demo.command import run_demo

    for name in ("socket", "run_dir", "read_only"):
        if name in options:
            raise UsageError(f"--{name.replace('_', '-')}: the demo has a host of its own; leave it out")
    return run_demo(settings, kept="data_dir" in options)


async def _verb(command: Command, options: argparse.Namespace, settings: Settings) -> bool:
    with woken_by_signals():
        async with _client(settings, complain) as client:
            return await command.run(client, options, settings)


def _client(settings: Settings, tell: Callable[[str], object] = lambda line: None) -> SupervisorClient:
    return SupervisorClient(settings.socket_path, settings.supervisor_user, tell, read_only=settings.read_only)


async def _check(settings: Settings) -> None:
    """Return where a supervisor answers; the dashboard itself would wait for one."""
    async with _client(settings) as client:
        await client.health()


def _dashboard(settings: Settings) -> int:
    """Attach to the supervisor that listens; where none does, wait for the one whose socket was named.

    Without a name a private one is started, but for who is to change nothing.
    """
    with contextlib.ExitStack() as stack:
        private = False
        if listens(settings.socket_path):
            asyncio.run(_check(settings))
        elif settings.socket is None and not settings.read_only:
            private = True
            log_file = settings.log_file or settings.data_dir / "supervisor.log"
            stack.enter_context(private_supervisor(settings.model_copy(update={"log_file": log_file})))
        title = PRIVATE if private else ""
        return terminal.run(_client(settings), mouse=not settings.no_mouse, title=title, private=private)
