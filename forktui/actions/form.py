"""What an action asks for before it is done, as values: fields that become a request. Pure."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from pydantic import ValidationError

from forktui.actions.metadata import parse_metadata
from forktui.client.api import SupervisorClient
from supervisor.models import Request, what_is_wrong

Values = Mapping[str, str]
"""What was typed or chosen, by the field's name; what is empty is left to the supervisor."""


@dataclass(frozen=True)
class Field:
    """One option of a request; `name` is the request's own, and with dashes the command line's."""

    name: str
    label: str
    value: str = ""
    """What it begins with, where it is typed."""
    choices: tuple[str, ...] = ()
    """What it may be, the default first; without any it is typed."""
    hint: str = ""
    """What an empty one means."""
    asked_alone: bool = True
    """Shown also where there is one choice only."""
    placed: bool = False
    """On a command line it stands by itself, without `--name`."""

    @property
    def option(self) -> str:
        """How it is given on a command line."""
        return f"--{self.assigned}"

    @property
    def assigned(self) -> str:
        """What it is called where it is given as `name=value`."""
        return self.name.replace("_", "-")

    @property
    def default(self) -> str:
        """What it is until something else is typed or chosen."""
        return self.choices[0] if self.choices else self.value


METADATA: Final = Field("metadata", "metadata", hint="key=value words, or a JSON object")
"""What a guest is told beside who it is."""
READINESS: Final = Field("readiness", "ready by", hint="console:PATTERN, tcp:ADDRESS:PORT or vsock:PORT")
"""What a guest is ready by."""


@dataclass(frozen=True)
class Question:
    """A question that is answered by Yes or No, and what becomes of whom it is about, a line each."""

    asked: str
    says: tuple[str, ...]
    yes: str
    planned: bool = False
    """The answer waits for the action's plan: what goes is known to the supervisor alone."""
    adds: Values = field(default_factory=dict)
    """What a Yes adds to the values."""


@dataclass(frozen=True)
class Look:
    """What the supervisor says of the values as they are."""

    lines: tuple[str, ...] = ()
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Of fields whose choices only the supervisor knows."""


Looked = Callable[[SupervisorClient, Sequence[str], Values], Awaitable[Look]]
Reviewed = Callable[[SupervisorClient, Sequence[str], Values], Awaitable[Question | None]]
"""What is asked before the values are used; None where nothing needs to be."""


@dataclass(frozen=True)
class Form:
    """Fields for one request, under a heading, with what is known beforehand."""

    asked: str
    says: tuple[str, ...]
    fields: tuple[Field, ...]
    model: type[Request]
    taken: frozenset[str] = frozenset()
    """The names that there are already."""
    words: tuple[str, ...] = ()
    """Fields that take several words."""
    look: Looked | None = None
    review: Reviewed | None = None

    @property
    def defaults(self) -> dict[str, str]:
        """The values where nothing is typed."""
        return {one.name: one.default for one in self.fields}

    def request(self, values: Values) -> dict[str, object]:
        """The fields of the request that say something."""
        return {
            name: value.split() if name in self.words and isinstance(value, str) else value
            for name, value in filled(values).items()
        }

    def refused(self, values: Values) -> dict[str, str]:
        """Why values cannot be used, by the field's name; empty where they can."""
        reasons: dict[str, str] = {}
        try:
            request = self.request(values)
        except ValueError as error:
            return {METADATA.name: str(error)}
        try:
            self.model.model_validate(request)
        except ValidationError as error:
            for problem in error.errors():
                name = str(problem["loc"][0]) if problem["loc"] else ""
                reasons.setdefault(name if name in values else self.fields[0].name, what_is_wrong(problem))
        if values.get("name") in self.taken:
            reasons.setdefault("name", f"{values['name']!r} is refused: there is an instance of that name")
        return reasons


def filled(values: Values) -> dict[str, object]:
    """The fields that say something, as the request has them; raises ValueError for metadata that cannot be read."""
    given = {name: value.strip() for name, value in values.items() if value.strip()}
    return {name: parse_metadata(value) if name == METADATA.name else value for name, value in given.items()}
