"""Who holds the lock of a source's memory, what releases it, and who else is below it. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

from rich.cells import cell_len, set_cell_size

from forktui.text.quantities import names, plural
from forktui.view.columns import STATE_INKS
from forktui.view.panels import Fact
from forktui.view.styled_lines import Line
from forktui.view.subject import Subject
from supervisor.models import Instance, LetGo

NAMED: Final = 6
"""How many of the forks are named where there is little room."""
LOOKED_AT: Final = 256
"""How many forks of one source are looked at for each drawing; of more only the numbers are told there."""
NAME_WIDTH: Final = 32
"""Cells within which the names of a listing make a column."""
LISTED: Final = 2000
"""How many of those below a source are listed in full."""

HOLDS: Final = "share_memory"

LET_GO: Final[Mapping[LetGo, str]] = {
    "detached": "detached, it has all of its memory",
    "restored": "restored from its own standby, it has a memory file of its own",
    "booted": "booted anew, it has no memory of its source",
}
"""Why a fork that shared its source's memory does so no more."""


@dataclass(frozen=True)
class Below:
    """Those below a source: who holds its lock, who else was made of it, and how many are below those."""

    holders: int
    others: int
    deeper: int
    other_names: tuple[str, ...] = ()
    """Of those that hold no lock of it, where they were looked at."""

    @property
    def all(self) -> int:
        """How many a cascade takes besides the source."""
        return self.holders + self.others + self.deeper


def below(subject: Subject) -> Below:
    """Those below an instance, at a cost that has a bound."""
    forks = subject.world.forks.get(subject.instance.id)
    made, holders = len(forks) if forks is not None else 0, subject.instance.fork_count
    others = max(made - holders, 0)
    found: tuple[str, ...] = ()
    if forks is not None and others and made <= LOOKED_AT:
        found = tuple(one.name for one in _made(subject) if one.fork_kind != HOLDS)
    return Below(holders, others, max(len(subject.family.below) - made, 0), found)


def source_facts(subject: Subject, named: int = NAMED) -> list[Fact]:
    """Of a source: who locks it, `named` of them by name, what unlocks it, and whom its deletion takes along."""
    instance, found = subject.instance, below(subject)
    facts: list[Fact] = []
    if instance.mem_locked:
        held_by = names(instance.locked_by, shown=named, total=instance.fork_count)
        held_by = held_by if named else plural(instance.fork_count, "share_memory fork")
        facts.append(Fact("locked by", [(held_by, "plain")]))
        facts.append(Fact("to unlock", _to_unlock(instance)))
    if found.all:
        facts.append(Fact("cascade", _cascade(found)))
    return facts


def fork_facts(subject: Subject) -> list[Fact]:
    """Of what was made of another instance: whether it holds that one's lock, and what lets go of it."""
    instance, source = subject.instance, subject.source
    if instance.source_id is None or source is None:
        return []
    if instance.fork_kind != HOLDS:
        return [Fact("lock", [(f"none of {source.name}: ", "plain"), (_why_none(instance), "muted")])]
    others = source.fork_count - 1
    beside = f", as {plural(others, 'other')} {'do' if others != 1 else 'does'}" if others > 0 else ""
    line: Line = [(f"holds that of {source.name}{beside}", "plain"), ("; ", "muted"), ("t", "key")]
    return [Fact("lock", [*line, (" detaches it, which lets go", "muted")])]


def listing(subject: Subject) -> list[Fact]:
    """Every fork of a source with whether it holds the lock, the holders first; those below them are counted."""
    made = sorted(_made(subject), key=lambda one: (one.fork_kind != HOLDS, one.number, one.created_at, one.id))
    width = min(max((cell_len(one.name) for one in islice(made, LISTED)), default=0), NAME_WIDTH)
    facts = [Fact("", _listed(subject, one, width)) for one in islice(made, LISTED)]
    return facts if len(made) <= LISTED else [*facts, Fact("", [(f"and {len(made) - LISTED} more", "muted")])]


def _listed(subject: Subject, one: Instance, width: int) -> Line:
    holds, glyphs, forks = one.fork_kind == HOLDS, subject.glyphs, subject.world.forks.get(one.id, ())
    name = set_cell_size(one.name, width) if cell_len(one.name) < width else one.name
    line: Line = [
        (f"{glyphs.lock if holds else glyphs.none} ", "standby" if holds else "guide"),
        (f"{name}  ", "plain"),
        (f"{glyphs.states[one.state]} {one.state:<9}", STATE_INKS[one.state]),
    ]
    if holds:
        line += [("  holds the lock: ", "plain"), ("d", "key"), (" deletes it, ", "muted"), ("t", "key")]
        line.append((" detaches it", "muted"))
    else:
        line.append((f"  holds no lock: {_why_none(one)}", "muted"))
    return [*line, (f"; {plural(len(forks), 'fork')} of its own" if forks else "", "muted")]


def _made(subject: Subject) -> Sequence[Instance]:
    """What was made of an instance, in no order."""
    return [subject.world.instances[one] for one in subject.world.forks_of(subject.instance.id)]


def _to_unlock(instance: Instance) -> Line:
    them = "it" if instance.fork_count == 1 else "all of them"
    return [
        ("t", "key"),
        (f" on {them} detaches, ", "plain"),
        ("d", "key"),
        (f" on {them} deletes; ", "plain"),
        ("d", "key"),
        (" here deletes the whole tree", "plain"),
    ]


def _cascade(found: Below) -> Line:
    """Whom the deletion of a whole tree takes along: also those that hold no lock."""
    line: Line = [(f"takes {found.all} below: ", "plain")]
    parts = [f"{found.holders} hold{'s' if found.holders == 1 else ''} the lock"] if found.holders else []
    if found.others:
        told = f" ({names(found.other_names, shown=3)})" if found.other_names else ""
        verb = "does" if found.others == 1 else "do"
        parts.append(f"{found.others} {verb} not{told}")
    if found.deeper:
        parts.append(f"{found.deeper} below those")
    return [*line, (", ".join(parts), "muted")]


def _why_none(instance: Instance) -> str:
    if instance.fork_kind == "checkpoint":
        return "a checkpoint has its memory for itself"
    return "a copy" if instance.let_go is None else LET_GO[instance.let_go]
