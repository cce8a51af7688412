"""What a command is: a verb, what it takes, and how its arguments become a request."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from forktui.actions.action import Verb
from forktui.client.api import SupervisorClient
from supervisor.models import explain
from supervisor.settings import Settings

Run = Callable[[SupervisorClient, Namespace, Settings], Awaitable[bool]]
Model = TypeVar("Model", bound=BaseModel)


class UsageError(Exception):
    """A request cannot be what was asked for; the message names the first field that is wrong."""


@dataclass(frozen=True)
class Command:
    """One verb: `options` are settings that it reads; `run` returns whether all of it was done."""

    name: str
    help: str
    arguments: Callable[[ArgumentParser], None]
    run: Run
    options: tuple[str, ...] = ("json_output",)
    nested: tuple["Command", ...] = ()
    """Commands of which one has to follow; it takes and does nothing itself then."""


def command_of(
    verb: Verb, arguments: Callable[[ArgumentParser], None], run: Run, options: tuple[str, ...] = ("json_output",)
) -> Command:
    """Return the command that does what the dashboard's verb does, under its word."""
    return Command(verb.word, verb.command, arguments, run, options)


def request(model: type[Model], fields: dict[str, object]) -> Model:
    """Return a request's body; raises UsageError."""
    for name, value in fields.items():
        words = [value] if isinstance(value, str) else value if isinstance(value, list | tuple) else []
        if not all(is_text(word) for word in words if isinstance(word, str)):
            raise UsageError(f"{name}: it is not UTF-8")
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise UsageError(explain(error.errors()[0])) from error


def reference(word: str) -> str:
    """Return a word of the command line that means an instance or an operation; an empty one means none."""
    if not word:
        raise ArgumentTypeError("it is empty, and has to be a name, id or unique id prefix")
    if not is_text(word):
        raise ArgumentTypeError("it is not UTF-8, and has to be a name, id or unique id prefix")
    return word


def is_text(word: str) -> bool:
    """Return whether a word of the command line can be sent: one that is not UTF-8 has lone surrogates."""
    return not any("\ud800" <= letter <= "\udfff" for letter in word)


def references(parser: ArgumentParser) -> None:
    """Take one instance or more."""
    parser.add_argument(
        "instances", nargs="+", type=reference, metavar="INSTANCE", help="a name, id or unique id prefix"
    )
