"""An instance and all below it: who that is, and their sums, at the cost of what changes. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import compress
from typing import Final

from forktui.model.change import Change
from forktui.model.faults import FaultSample, HostFaults
from forktui.model.forest import descendants
from forktui.model.totals import Portion, Totals, added, portion, summed, taken
from forktui.model.world import World

FAULT_SECONDS: Final = 40.0
_NOBODY: Final[frozenset[str]] = frozenset()


@dataclass(frozen=True)
class Family:
    """What there is to say of an instance and all below it together."""

    root: str
    below: frozenset[str] = _NOBODY
    """The ids of all below the root."""
    sums: Totals = field(default_factory=Totals)
    """Over the root and all below it, but for `oldest_fault_ms`."""
    faults: tuple[FaultSample, ...] = field(default=(), compare=False)
    """Of all that were below the root at the time, for as long back as is drawn."""

    @property
    def members(self) -> frozenset[str]:
        """The root and all below it."""
        return self.below | {self.root}


def family_of(world: World, root: str) -> Family:
    """The family of an instance, looked for from the beginning."""
    below = frozenset(descendants(world, root))
    sums = Totals(*_summed(world, below | {root}))
    return Family(root, below, sums, _faults((), world.faults, below))


def family_beside(family: Family | None, world: World, root: str, below: frozenset[str]) -> Family:
    """The family of another root of the same world, at the cost of what the two have not in common."""
    was, members = frozenset() if family is None else family.members, below | {root}
    gone, came = was - members, members - was
    if family is None or len(gone) + len(came) >= len(members):
        sums = _summed(world, members)
    else:
        sums = added(taken(family.sums.portion, _summed(world, gone)), _summed(world, came))
    return Family(root, below, Totals(*sums), _faults((), world.faults, below))


def family_after(family: Family, before: World, after: World, change: Change) -> Family:
    """What a family of the world before a change is after it."""
    if change.everything:
        return family_of(after, family.root)
    below = frozenset(descendants(after, family.root)) if _concerned(family, after, change.moved) else family.below
    was, members = family.members, below | {family.root}
    touched = change.ids & (was | members)
    if len(touched) * 2 > len(members):
        sums = _summed(after, members)
    else:
        touched |= members ^ was
        left = taken(family.sums.portion, _summed(before, touched & was))
        sums = added(left, _summed(after, touched & members))
    return Family(family.root, below, Totals(*sums), _faults(family.faults, after.faults, below))


def _concerned(family: Family, after: World, moved: Iterable[str]) -> bool:
    """Whether one of a family has moved, or one that has moved is now a fork of it."""
    known = family.members
    return any(
        instance_id in known
        or ((instance := after.instances.get(instance_id)) is not None and instance.source_id in known)
        for instance_id in moved
    )


def _summed(world: World, instance_ids: Iterable[str]) -> Portion:
    known = ((world.instances.get(i), world.statistics.get(i)) for i in instance_ids)
    return summed(portion(instance, counters) for instance, counters in known if instance is not None)


def _faults(
    told: Sequence[FaultSample], samples: Sequence[HostFaults], below: frozenset[str]
) -> tuple[FaultSample, ...]:
    """The samples of a family: what it had of them, and what those below it had since."""
    if not below or not samples:
        return ()
    oldest, last = samples[-1].at - FAULT_SECONDS, told[-1].at if told else float("-inf")
    kept = [sample for sample in told if oldest < sample.at < last]
    # The last may have been told in part: statistics come in pieces.
    fresh = [sample for sample in samples if sample.at >= max(last, oldest)]
    return (*kept, *(FaultSample(sample.at, _among(below, sample.of)) for sample in fresh))


def _among(below: frozenset[str], faults: Mapping[str, int]) -> int:
    if len(below) < len(faults):
        return sum(faults.get(instance_id, 0) for instance_id in below)
    return sum(compress(faults.values(), map(below.__contains__, faults)))
