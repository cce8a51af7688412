"""What both programs share besides their options: how a command line is read, and what they begin and end with.

The standard library only, and little of it: it is imported before anything else.
"""

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NoReturn, TextIO

from supervisor.system.log_text import one_line

FAILED: Final = 1
READER_GONE: Final = 141
"""What a shell shows of a program that SIGPIPE has ended: 128 and its number."""


class OutputError(OSError):
    """Standard output cannot be written; the message names it."""


class _Output(io.TextIOWrapper):
    """Standard output whose failures name it."""

    def write(self, text: str) -> int:
        with _failures_named():
            return super().write(text)

    def flush(self) -> None:
        with _failures_named():
            super().flush()


def run_program(name: str, run: Callable[[], int]) -> int:
    """Run a program with standard streams that are open, and return its exit code.

    That is 1 after one line where its output could not be written, and 141 where whoever read it has gone.
    """
    _open_standard_streams()
    _believe_the_terminal()
    try:
        try:
            return run()
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        say(f"{name}: interrupted")
        return FAILED
    except BrokenPipeError:
        return READER_GONE
    except OutputError as error:
        say(f"{name}: {error}")
        return FAILED
    finally:
        # What cannot be written would be tried once more by the interpreter, which says so in its own words.
        for stream in (sys.stdout, sys.stderr):
            flush_or_discard(stream)


def say(line: str) -> None:
    """Print one line on standard error, whatever is in it; where that cannot be written there is nobody to tell."""
    with contextlib.suppress(OSError):
        print(one_line(line), file=sys.stderr, flush=True)


def _open_standard_streams() -> None:
    """Open those that were closed: a file or a socket would take their numbers, and be read or written as they are."""
    for number, flags, mode in ((0, os.O_RDONLY, "r"), (1, os.O_RDONLY, "w"), (2, os.O_WRONLY, "w")):
        try:
            os.fstat(number)
        except OSError:
            # Output is open for reading, so that what is written to it fails as it would where it is closed.
            os.set_inheritable(os.open(os.devnull, flags), True)
            name = ("stdin", "stdout", "stderr")[number]
            stream = open(number, mode, errors="backslashreplace", closefd=False)  # noqa: SIM115
            setattr(sys, name, stream)
            setattr(sys, f"__{name}__", stream)
    if sys.stdout is sys.__stdout__ and isinstance(sys.stdout, io.TextIOWrapper):
        lines, encoding = sys.stdout.line_buffering, sys.stdout.encoding
        output = _Output(sys.stdout.detach(), encoding, errors="replace", line_buffering=lines)
        sys.stdout = sys.__stdout__ = output  # type: ignore[misc]


def _believe_the_terminal() -> None:
    """Let no COLUMNS and LINES stand for the size of a terminal that knows its own."""
    try:
        size = os.get_terminal_size(1)
    except OSError:
        return
    if size.columns and size.lines:
        for name in ("COLUMNS", "LINES"):
            os.environ.pop(name, None)


@contextlib.contextmanager
def _failures_named() -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def flush_or_discard(stream: TextIO) -> None:
    """Write what is left to be written to a stream, or see to it that nobody tries again."""
    try:
        stream.flush()
    except OSError:
        devnull = os.open(os.devnull, os.O_WRONLY)
        os.dup2(devnull, stream.fileno())
        os.close(devnull)


class CommandLine(argparse.ArgumentParser):
    """A command line on which an option is given once, or adds: none that was given is dropped without a word.

    `given` is what its commands share with it, since an option may be before a command and behind it.
    """

    def __init__(self, *arguments: Any, given: dict[str, object] | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.given: dict[str, object] = {} if given is None else given
        self.register("action", None, _StoreOnce)
        self.register("action", "store", _StoreOnce)

    def error(self, message: str) -> NoReturn:
        """End the program with a usage error; what it quotes of a command line, a terminal can only print."""
        super().error(one_line(message))

    def note(self, option: str | None, dest: str, value: object) -> None:
        """Note the value of an option; ends the program where it was given with another one already."""
        if option is not None and self.given.setdefault(dest, value) != value:
            self.error(f"argument {option}: it was given as {self.given[dest]!r} already, and may be given once")


class _StoreOnce(argparse.Action):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        assert isinstance(parser, CommandLine)
        parser.note(option_string, self.dest, values)
        setattr(namespace, self.dest, values)


class YesOrNo(argparse.BooleanOptionalAction):
    """`--word` or `--no-word`, and not both."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        super().__call__(parser, namespace, values, option_string)
        assert isinstance(parser, CommandLine)
        parser.note(option_string, self.dest, getattr(namespace, self.dest))
