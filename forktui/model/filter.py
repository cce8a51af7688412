"""The filter: words, and `field:value`, all of which an instance must have. Pure.

As in `web state:running`, `template:base is:locked`.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, get_args

from forktui.model.world import World
from supervisor.models import ForkKind, HypervisorName, Instance, MemoryBackend, State

Values = Callable[[World, Instance], Iterable[str]]
Predicate = Callable[[Instance], bool]


@dataclass(frozen=True)
class Field:
    """What a value is looked for in: anywhere in it, or at its beginning."""

    of: Values
    words: tuple[str, ...] = ()
    """The values that there are, where they are few: another is a mistake."""
    anywhere: bool = False
    counted: bool = False
    """Whether statistics tell it."""


def _template(world: World, instance: Instance) -> Iterable[str]:
    """A template has no name but that of its instance."""
    if instance.template_id is None:
        return ()
    template = world.templates.get(instance.template_id)
    source = world.instances.get(template.instance_id) if template is not None else None
    return (instance.template_id,) if source is None else (instance.template_id, source.name.lower())


def _marks(world: World, instance: Instance) -> Iterable[str]:
    guest = world.statistics_of(instance.id).guest
    marks = {
        "locked": instance.mem_locked,
        "recording": instance.recording,
        "busy": instance.operation is not None,
        "corrupt": guest is not None and guest.corrupt is not None,
        "ended": has_ended(instance),
        "jailed": instance.jail_uid is not None,
        "unjailed": instance.vmm_pid is not None and instance.jail_uid is None,
    }
    return [word for word, is_so in marks.items() if is_so]


FIELDS: Final[Mapping[str, Field]] = {
    "name": Field(lambda world, one: (one.name.lower(),), anywhere=True),
    "id": Field(lambda world, one: (one.id.lower(),)),
    "state": Field(lambda world, one: (one.state.lower(),), tuple(state.lower() for state in State)),
    "vmm": Field(lambda world, one: (one.hypervisor,), get_args(HypervisorName)),
    "backend": Field(lambda world, one: (one.memory_backend or "none",), (*get_args(MemoryBackend), "none")),
    "image": Field(lambda world, one: (one.image.lower(),), anywhere=True),
    "kind": Field(lambda world, one: (one.fork_kind or "boot",), (*get_args(ForkKind), "boot")),
    "template": Field(_template),
    "is": Field(_marks, ("locked", "recording", "busy", "corrupt", "ended", "jailed", "unjailed"), counted=True),
}


def has_ended(instance: Instance) -> bool:
    """Whether nothing of an instance runs, or waits to be restored."""
    return instance.state is State.STOPPED


@dataclass(frozen=True)
class Filter:
    """What is looked for; nothing has what is in a filter with a `problem`."""

    words: tuple[str, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()
    """Fields of FIELDS, each with its value."""
    problem: str = ""
    """Why what was typed cannot be looked for, and what could be."""

    def __bool__(self) -> bool:
        return bool(self.words or self.terms or self.problem)

    @property
    def counted(self) -> bool:
        """Whether statistics decide on what is found."""
        return any(FIELDS[name].counted for name, _ in self.terms)

    @property
    def related(self) -> bool:
        """Whether another instance than the one looked at decides."""
        return any(name == "template" for name, _ in self.terms)

    def predicate(self, world: World) -> Predicate:
        """Whether an instance of the world is found."""
        words, terms = self.words, [(FIELDS[name], value) for name, value in self.terms]
        if self.problem:
            return lambda instance: False

        def found(instance: Instance) -> bool:
            if words:
                text = _searchable(instance)
                if not all(word in text for word in words):
                    return False
            return all(_has(field, field.of(world, instance), value) for field, value in terms)

        return found

    @property
    def pattern(self) -> re.Pattern[str] | None:
        """What of a name is looked for; None where it is nothing."""
        words = [*self.words, *(value for name, value in self.terms if name == "name" and value)]
        return re.compile("|".join(map(re.escape, words)), re.IGNORECASE) if words and not self.problem else None


def filter_of(query: str) -> Filter:
    """What a line that is typed looks for."""
    words: list[str] = []
    terms: list[tuple[str, str]] = []
    for part in query.lower().split():
        name, colon, value = part.partition(":")
        if not colon:
            words.append(part)
            continue
        field = FIELDS.get(name)
        if field is None:
            return Filter(problem=f"{name}: is no field; there are {', '.join(f'{known}:' for known in FIELDS)}")
        if field.words and not any(word.startswith(value) for word in field.words):
            return Filter(problem=f"{name}:{value} is not known; there are {', '.join(field.words)}")
        terms.append((name, value))
    return Filter(tuple(words), tuple(terms))


def _has(field: Field, values: Iterable[str], wanted: str) -> bool:
    if not wanted:
        # What is about to be typed.
        return True
    return any(wanted in value if field.anywhere else value.startswith(wanted) for value in values)


def _searchable(instance: Instance) -> str:
    words = [instance.name, instance.id, instance.image, instance.state, instance.hypervisor]
    words += [instance.memory_backend or "", instance.fork_kind or ""]
    words += ["locked"] if instance.mem_locked else []
    words += ["recording"] if instance.recording else []
    return " ".join(words).lower()
