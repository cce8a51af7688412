"""What an action is: one object, which keys, footer, palette, help, the `:` line and the commands read."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Protocol

from forktui.actions.form import Field, Form, Question, Values
from forktui.client.api import SupervisorClient
from forktui.model.world import World
from supervisor.models import Instance

Targets = Sequence[Instance]


class Selected(list[Instance]):
    """All that an action is about, of which each may be asked about the others."""

    @cached_property
    def names(self) -> frozenset[str]:
        """What they are called."""
        return frozenset(one.name for one in self)


Guard = Callable[[Instance, Selected], str | None]
"""Why one instance refuses an action on all the selected ones; None where it does not."""


class Group(StrEnum):
    """The sections of the help screen."""

    MACHINES = "Virtual machines"
    TREE = "Fork tree"
    VIEW = "View"
    APPLICATION = "forktui"


@dataclass(frozen=True)
class Outcome:
    """What an action did: one line about what was done, and one for each refusal or failure."""

    done: str
    failures: tuple[str, ...] = ()
    made: str = ""
    """The id of the one that the cursor is to be on."""


Do = Callable[[SupervisorClient, World, Sequence[str], Values], Awaitable[Outcome]]
"""The requests that do a verb to instances, by their ids, with what its form was filled with."""
Plan = Callable[[SupervisorClient, World, Sequence[str]], Awaitable[tuple[str, ...]]]
"""What the supervisor says that a verb would do, a line each."""


class Arranging(Protocol):
    """What can be done to the fork tree."""

    def toggle_mark(self) -> None: ...
    def mark_found(self) -> None: ...
    def mark_tree(self) -> None: ...
    def mark_range(self) -> None: ...
    def clear_marks(self) -> None: ...
    def toggle(self) -> None: ...
    def toggle_all(self) -> None: ...
    def filter(self, words: str) -> None: ...
    def hide_ended(self) -> None: ...
    def sort(self, words: str) -> None: ...
    def sort_beside(self, step: int) -> None: ...
    def turn_round(self) -> None: ...
    def sum_trees(self) -> None: ...


class Desk(Protocol):
    """What the dashboard lets be done with it."""

    @property
    def forest(self) -> Arranging: ...
    def choose_columns(self) -> None: ...
    def open_command_line(self) -> None: ...
    def show_console(self) -> None: ...
    def copy_id(self) -> None: ...
    def toggle_details(self) -> None: ...
    def show_details(self) -> None: ...
    def toggle_events(self) -> None: ...
    def show_events(self) -> None: ...
    def hold_events(self) -> None: ...
    def show_fan_outs(self) -> None: ...
    def dismiss_fan_outs(self) -> None: ...
    def show_alarms(self) -> None: ...
    def reconnect(self) -> None: ...
    def show_help(self, words: str) -> None: ...
    def leave(self) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Action:
    """Something a key does. `keys` are Textual's names, the first of them shown; `footer` puts it into the footer."""

    word: str
    """What it is called behind `:`, and on the command line where it is a command too."""
    label: str
    help: str
    group: Group
    keys: tuple[str, ...]
    also: tuple[str, ...] = ()
    """Other words for it."""
    shown_key: str = ""
    footer: bool = False

    @property
    def key(self) -> str:
        """The key as an operator reads it."""
        return self.shown_key or self.keys[0]

    @property
    def name(self) -> str:
        """What it is called where nothing follows: the label without its ellipsis."""
        return self.label.rstrip("…")


@dataclass(frozen=True, kw_only=True)
class OnScreen(Action):
    """An action on the dashboard alone, which is never refused."""

    do: Callable[[Desk, str], None]
    """Does it with the words that follow behind `:`, which a key leaves empty."""
    takes: tuple[str, ...] | None = ()
    """The words of which one may follow; None where any may."""
    several: bool = False
    """Whether more than one of them may."""


@dataclass(frozen=True, kw_only=True)
class Verb(Action):
    """An action that changes something on the host: guarded, asked about where it needs to be, and told of."""

    command: str
    """What `forktui --help` says of it."""
    guard: Guard
    question: Callable[[World, Targets], Question | None]
    """What is asked first; None where nothing is lost by it."""
    do: Do
    form: Callable[[World, Targets], Form] | None = None
    """What is filled in first."""
    fields: tuple[Field, ...] = ()
    """All that its forms may ask for: the options that it takes behind `:`."""
    plan: Plan | None = None
    """What is said in the question once the supervisor has told it."""
    while_busy: bool = False
    """Needs no wait for what is under way on an instance: it ends that."""
    one: bool = False
    """Acts on the instance under the cursor, never on all that are marked."""
    makes: bool = False
    """Acts on no instance: it makes one."""

    def refused(self, world: World, selection: Sequence[str], forbidden: str | None) -> str | None:
        """Why the verb cannot be done on the selected instances now and what would allow it; None where it can.

        `forbidden` is why nothing at all can be changed (guards.py).
        """
        if forbidden is not None:
            return f"{self.name} refused: {forbidden}"
        selected = Selected(world.instances[i] for i in selection if i in world.instances)
        if not selected and not self.makes:
            return f"{self.name} refused: no instance is selected"
        for instance in selected:
            if reason := self._busy(instance) or self.guard(instance, selected):
                return f"{self.name} refused: {reason}" if len(selected) == 1 else _of_many(self.name, reason, selected)
        return None

    def _busy(self, instance: Instance) -> str | None:
        if self.while_busy or not instance.busy:
            return None
        return f"{instance.name}: {instance.busy} is under way; wait for it, or cancel it (X)"


def unasked(world: World, targets: Targets) -> None:
    """The question of a verb by which nothing is lost."""


def _of_many(label: str, reason: str, selected: Targets) -> str:
    return f"{label} of {len(selected)} marked refused: {reason} (u clears the marks)"
