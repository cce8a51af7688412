"""The `:` line: an action's word, whom it is done to, and what its form is filled with. Pure.

As in `fork web-1 --name a`, `fan-out 20`, `fan-out web-1 20 prefetch=off`, `delete web-1 web-2`, `sort private`.
"""

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from forktui.actions.action import Action, OnScreen, Verb
from forktui.actions.form import Field, Form, Values
from forktui.actions.registry import BY_WORD
from forktui.model.world import World
from supervisor.models import Instance

Selected = Callable[[Verb], Sequence[str]]
"""The ids of those that a verb acts on where none is named."""


class NotUnderstoodError(Exception):
    """A line cannot be done; the message says why, and what could be."""


@dataclass(frozen=True)
class Command:
    """What a line asks for."""

    action: Action
    words: str = ""
    """Of an action on the screen: what follows its word."""
    ids: tuple[str, ...] = ()
    values: Values = field(default_factory=dict)
    """What was said of the form."""


def understood(line: str, world: World, selected: Selected) -> Command | None:
    """What a line asks for; None where it is empty. Raises NotUnderstoodError."""
    word, _, rest = line.strip().partition(" ")
    if not word:
        return None
    action = BY_WORD.get(word)
    if action is None:
        close = get_close_matches(word, BY_WORD, n=1)
        meant = f"{close[0]}? " if close else ""
        raise NotUnderstoodError(f"{word} is not known: {meant}known are {', '.join(sorted(BY_WORD))}")
    if isinstance(action, Verb):
        return _verb(action, word, rest, world, selected)
    assert isinstance(action, OnScreen)
    return Command(action, _words(action, word, rest.strip()))


def completions(line: str, world: World) -> list[str]:
    """What the last word of a line may be."""
    *before, last = line.split(" ")
    if not before:
        return [word for word in sorted(BY_WORD) if word.startswith(last)]
    action = BY_WORD.get(before[0])
    if isinstance(action, OnScreen):
        return [word for word in action.takes or () if word.startswith(last)]
    if not isinstance(action, Verb):
        return []
    fields = {one.option: one for one in action.fields if not one.placed}
    assigned = {one.assigned: one.choices for one in fields.values()}
    if before[-1] in fields:
        return [choice for choice in fields[before[-1]].choices if choice.startswith(last)]
    option, equals, begun = last.partition("=")
    if equals:
        choices = fields[option].choices if option in fields else assigned.get(option, ())
        return [f"{option}={choice}" for choice in choices if choice.startswith(begun)]
    if last.startswith("-"):
        return [option for option in fields if option.startswith(last)]
    names = [] if action.makes else sorted(one.name for one in world.instances.values())
    return [name for name in names if name.startswith(last)]


def completed(line: str, world: World) -> str:
    """The line with as much as there is no choice about."""
    found = completions(line, world)
    if not found:
        return line
    begin = line[: len(line) - len(line.split(" ")[-1])]
    return begin + (f"{found[0]} " if len(found) == 1 else _common(found))


def usage(line: str) -> str:
    """What the verb that a line begins with takes; empty before it is typed in full, and for what takes nothing."""
    word, space, _ = line.lstrip().partition(" ")
    action = BY_WORD.get(word) if space else None
    if isinstance(action, OnScreen):
        return f"{word} {' | '.join(action.takes)}" if action.takes else ""
    if not isinstance(action, Verb):
        return ""
    whom = [] if action.makes else ["[INSTANCE]" if action.one else "[INSTANCE...]"]
    placed = [one.name.upper() if action.makes else f"[{one.name.upper()}]" for one in action.fields if one.placed]
    options = [f"{one.assigned}={'|'.join(one.choices) or '...'}" for one in action.fields if not one.placed]
    return " ".join([word, *whom, *placed, *options])


def _common(words: Sequence[str]) -> str:
    """What all of the words begin with."""
    first, last = min(words), max(words)
    return next((first[:i] for i in range(len(first)) if first[: i + 1] != last[: i + 1]), first)


def resolved(reference: str, world: World) -> Instance:
    """The instance that is meant: by its id, else by its name, else by the unique beginning of its id."""
    if reference in world.instances:
        return world.instances[reference]
    named = [one for one in world.instances.values() if one.name == reference]
    begun = [one for one in world.instances.values() if one.id.startswith(reference)]
    if len(named or begun) == 1:
        return (named or begun)[0]
    raise NotUnderstoodError(f"{reference}: {'several ids begin so' if begun else 'there is no such instance'}")


def _words(action: OnScreen, word: str, words: str) -> str:
    if action.takes is None or not words:
        return words
    if not action.takes:
        raise NotUnderstoodError(f"{word} takes nothing: leave {words} out")
    return " ".join(_meant(action.takes, word, one) for one in (words.split() if action.several else [words]))


def _meant(takes: Sequence[str], word: str, said: str) -> str:
    meant = [one for one in takes if one == said] or [one for one in takes if one.startswith(said)]
    if len(meant) != 1:
        raise NotUnderstoodError(f"{said} is not known: {word} takes {', '.join(takes)}")
    return meant[0]


def _verb(verb: Verb, word: str, rest: str, world: World, selected: Selected) -> Command:
    bare, values = _split(verb, word, rest)
    placed = [one for one in verb.fields if one.placed]
    if placed and bare and (verb.makes or len(bare) > 1 or not _is_instance(bare[0], world)):
        values[placed[0].name] = bare.pop(0 if verb.makes else -1)
    if verb.makes and bare:
        options = ", ".join(one.assigned + "=" for one in verb.fields if not one.placed)
        raise NotUnderstoodError(f"{word} takes one name: what is {' '.join(bare)}? There are {options}")
    ids = tuple(dict.fromkeys(resolved(reference, world).id for reference in bare)) or tuple(selected(verb))
    if verb.one and len(ids) > 1:
        raise NotUnderstoodError(f"{word} takes one instance: {len(ids)} are named")
    if values and verb.form is not None and (ids or verb.makes):
        form = verb.form(world, [world.instances[i] for i in ids if i in world.instances])
        _check(form, word, values)
    return Command(verb, ids=ids, values=values)


def _split(verb: Verb, word: str, rest: str) -> tuple[list[str], dict[str, str]]:
    """The words that stand by themselves, and the options."""
    try:
        words = iter(shlex.split(rest))
    except ValueError as error:
        raise NotUnderstoodError(f"{word}: {str(error).lower()}: close the quotes") from error
    bare: list[str] = []
    values: dict[str, str] = {}
    for one in words:
        option, equals, value = one.partition("=")
        if not one.startswith("-"):
            # No name has an equals sign: what has one is an option.
            if not equals:
                bare.append(one)
                continue
            option = f"--{option.replace('_', '-')}"
        name = _field(verb, word, option).name
        if name in values:
            raise NotUnderstoodError(f"{option} is given twice: give it once")
        values[name] = value if equals else next(words, "")
        if not values[name]:
            raise NotUnderstoodError(f"{option} takes a value")
    return bare, values


def _field(verb: Verb, word: str, option: str) -> Field:
    fields = {one.option: one for one in verb.fields if not one.placed}
    if option not in fields:
        takes = f"it takes {', '.join(fields)}" if fields else "it takes no options"
        raise NotUnderstoodError(f"{option} is not known to {word}: {takes}")
    return fields[option]


def _is_instance(word: str, world: World) -> bool:
    return not word.isdecimal() and any(word in (one.id, one.name) for one in world.instances.values())


def _check(form: Form, word: str, values: Values) -> None:
    """Raise NotUnderstoodError where the form refuses what was said of it."""
    there = {one.name for one in form.fields}
    for name in values:
        if name not in there:
            raise NotUnderstoodError(f"{word}: {name.replace('_', ' ')} is not for these: leave it out")
    for one in form.fields:
        if one.name in values and one.choices and values[one.name] not in one.choices and len(one.choices) > 1:
            raise NotUnderstoodError(f"{one.option} takes {', '.join(one.choices)}")
    refused = form.refused({**form.defaults, **values})
    if refused:
        name, reason = next(iter(refused.items()))
        raise NotUnderstoodError(f"{name.replace('_', ' ')}: {reason}")
