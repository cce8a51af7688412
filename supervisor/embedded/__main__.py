"""`python -m supervisor.embedded`: Firecracker's command line, as far as the supervisor's driver uses it."""

import os
import socket
import sys
import threading
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, NoReturn

from supervisor.embedded import APP_NAME, SNAPSHOT_VERSION, VERSION
from supervisor.embedded.api import Api
from supervisor.embedded.config import parse_json, vm_config
from supervisor.embedded.ending import Ending
from supervisor.embedded.http import serve
from supervisor.embedded.log import LEVELS, Log, open_log
from supervisor.embedded.machine import Machine
from supervisor.embedded.refusals import FaultError, MalformedError, reason
from supervisor.embedded.walker import GuestEnd
from supervisor.system.last_words import escape_tracebacks, print_error

# Firecracker's FcExitCode (src/vmm/src/lib.rs).
EXIT_OK, EXIT_ERROR, EXIT_BAD_CONFIGURATION, EXIT_ARGUMENTS = 0, 1, 152, 153

USAGE: Final = f"""{APP_NAME} v{VERSION}: Firecracker's API, real guest memory, a simulated CPU

usage: python -m supervisor.embedded [--api-sock PATH] [--config-file PATH] [--id ID] [--log-path PATH] [--level LEVEL]
                                     [--show-level] [--answer-as VERSION]
       python -m supervisor.embedded --version | --snapshot-version | --help

  --api-sock PATH      where the API's Unix socket is made  [default: /run/firecracker.socket]
  --config-file PATH   a VM configuration in Firecracker's JSON format, booted at once
  --id ID              the VM's id: 1 to 64 letters, digits and hyphens  [default: anonymous-instance]
  --log-path PATH      a file or fifo for the log  [default: stderr]
  --level LEVEL        Off, Error, Warning, Info, Debug or Trace  [default: Info]
  --show-level         say the level of each line of the log
  --answer-as VERSION  a version of Firecracker: it is the one that the API tells, and whose fields a load has"""

FLAGS: Final = ("show_level",)
"""The arguments without a value."""


class ArgumentError(Exception):
    """The command line cannot be followed."""

    def __init__(self, message: str, exit_code: int = EXIT_ARGUMENTS) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class Arguments(NamedTuple):
    """The command line; what is None was not given."""

    api_sock: str = "/run/firecracker.socket"
    config_file: str | None = None
    id: str = "anonymous-instance"
    log_path: str | None = None
    level: str = "Info"
    show_level: bool = False
    answer_as: str | None = None


def parse_arguments(words: Sequence[str]) -> Arguments:
    """Return what `--name value` pairs and flags say; raises ArgumentError. Pure."""
    given: dict[str, Any] = {}
    rest = iter(words)
    for word in rest:
        name = word.removeprefix("--").replace("-", "_")
        if not word.startswith("--") or name not in Arguments._fields or "_" in word:
            raise ArgumentError(f"Found argument '{word}' which wasn't expected, or isn't valid in this context")
        if name in given:
            raise ArgumentError(f"The argument '{word}' was provided more than once")
        if name in FLAGS:
            given[name] = True
            continue
        value = next(rest, None)
        if value is None or value.startswith("--"):
            raise ArgumentError(f"The argument '{word}' requires a value, but none was supplied")
        given[name] = value
    arguments = Arguments(**given)
    if arguments.level.lower() not in LEVELS:
        raise ArgumentError(
            f"Invalid value for logger level: {arguments.level}. "
            "Possible values: [Off, Error, Warning, Info, Debug, Trace]",
            EXIT_BAD_CONFIGURATION,
        )
    if not (1 <= len(arguments.id) <= 64 and arguments.id.replace("-", "0").isalnum() and arguments.id.isascii()):
        raise ArgumentError(
            f"Invalid instance ID: {arguments.id}: it must be 1 to 64 letters, digits and hyphens", EXIT_ERROR
        )
    return arguments


def boot(machine: Machine, config_file: str) -> None:
    """Boot what a config file says; raises FaultError."""
    try:
        with os.fdopen(os.open(config_file, os.O_RDONLY | os.O_CLOEXEC), "rb") as file:
            config = vm_config(parse_json(file.read()))
    except OSError as error:
        raise FaultError(
            f"{config_file}: Unable to open or read from the configuration file: {reason(error)}"
        ) from error
    except MalformedError as error:
        raise FaultError(f"{config_file}: Invalid JSON: {error}") from error
    machine.set_config(config.machine_config)
    machine.set_boot_source(config.boot_source)
    if config.balloon is not None:
        machine.set_balloon(config.balloon)
    machine.start()


def listen(path: str) -> socket.socket:
    """Return a listening socket at a path that is not there yet; raises FaultError."""
    listener = socket.socket(socket.AF_UNIX)
    try:
        listener.bind(path)
        listener.listen()
    except OSError as error:
        raise FaultError(
            f"Failed to open the API socket at: {path}: {reason(error)}. Check that it is not already used."
        ) from error
    return listener


def run(arguments: Arguments, log: Log) -> int:
    """Serve until a signal, a failed load, or the guest ends the VMM; returns its exit code. Raises FaultError."""
    ending = Ending()

    def ended(why: BaseException) -> None:
        if not isinstance(why, GuestEnd):
            log.error(f"The CPU has stopped for an error of the VMM: {why!r}")
            ending.fail()
            return
        if why.triple_fault:
            log.info("Received KVM_EXIT_SHUTDOWN signal")
        log.info("Vmm is stopping.")
        ending.finish()

    listener = listen(arguments.api_sock)
    log.info(f'Listening on API socket ("{arguments.api_sock}").')
    try:
        machine = Machine(log, ended)
        if arguments.config_file is not None:
            boot(machine, arguments.config_file)
        api = Api(machine, arguments.id, log, arguments.answer_as)
        served = (listener, api.handle, ending.fail)
        threading.Thread(target=serve, args=served, name="api", daemon=True).start()
        return EXIT_OK if ending.wait() else EXIT_ERROR
    finally:
        os.unlink(arguments.api_sock)  # noqa: PTH108 - pathlib is not worth its import here


def main(words: Sequence[str]) -> int:
    """Return the exit code; what went wrong is said on stderr, and in the log where there is one."""
    escape_tracebacks()
    if information := {
        "--version": f"{APP_NAME} v{VERSION}",
        "--snapshot-version": f"v{SNAPSHOT_VERSION}",
        "--help": USAGE,
    }.get(words[0] if words else ""):
        print(information)
        return EXIT_OK
    try:
        arguments = parse_arguments(words)
        level = LEVELS[arguments.level.lower()]
        log = open_log(arguments.log_path, arguments.id, level, arguments.show_level)
    except ArgumentError as error:
        return fail(str(error), error.exit_code)
    except OSError as error:
        return fail(f"Could not initialize logger: Failed to open target file: {reason(error)}", EXIT_ERROR)
    log.info(f"Running {APP_NAME} v{VERSION}")
    try:
        exit_code = run(arguments, log)
    except FaultError as error:
        if arguments.log_path is not None:
            log.error(error.message)
        return fail(error.message, EXIT_ERROR)
    if exit_code == EXIT_OK:
        log.info(f"{APP_NAME} exiting successfully. exit_code=0")
    else:
        log.error(f"{APP_NAME} exiting with error. exit_code={exit_code}")
    return exit_code


def fail(message: str, exit_code: int) -> int:
    """Say what ended the VMM and return its exit code."""
    print_error(f"Error: {message}")
    return exit_code


def leave(exit_code: int) -> NoReturn:
    """End the process at once: the interpreter's own end would unmap memory under a CPU that waits in a page fault."""
    sys.stdout.flush()
    os._exit(exit_code)


if __name__ == "__main__":
    leave(main(sys.argv[1:]))
