"""What both programs share besides their options: how a command line is read, and what they begin and end with."""

import argparse
from collections.abc import Sequence
from typing import Any


class CommandLine(argparse.ArgumentParser):
    """A command line on which an option is given once, or adds: none that was given is dropped without a word.

    `given` is what its commands share with it, since an option may be before a command and behind it.
    """

    def __init__(self, *arguments: Any, given: dict[str, object] | None = None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.given: dict[str, object] = {} if given is None else given
        self.register("action", None, _StoreOnce)
        self.register("action", "store", _StoreOnce)

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
