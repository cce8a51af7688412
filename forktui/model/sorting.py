"""What the forks of one source, and the roots, are sorted by: what a measure says of each. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, Final

from forktui.model.change import Change
from forktui.model.world import World
from supervisor.models import Instance

Value = Callable[[Instance], Any]
"""What a measure says of an instance; None where it says nothing."""

created: Final[Callable[[Instance], tuple[Any, ...]]] = attrgetter("number", "created_at", "id")
"""The order in which instances were made, which is total: what else is equal stays in it."""


_UNKNOWN: Final = object()


@dataclass(frozen=True)
class Measure:
    """Something that instances are compared by; the values of one are of one type."""

    of: Callable[[World], Value]
    falling: bool = False
    """Whether the largest comes first, as long as that is not turned round."""
    counted: bool = False
    """Whether statistics tell it, or time alone: such are sorted on a clock, not at each change."""
    timed: bool = False
    """Whether it is another also where nothing has been told of an instance."""
    sums: bool = False
    """Whether it can be summed over an instance and all below it."""

    @property
    def live(self) -> bool:
        """Whether rows would move all the time if they were always sorted by it."""
        return self.counted or self.timed


BY_CREATION: Final = Measure(lambda world: lambda one: (-one.number, -one.created_at.timestamp()), falling=True)
"""The oldest first."""


@dataclass(frozen=True)
class Sort:
    """How siblings are sorted."""

    measure: Measure = BY_CREATION
    reversed: bool = False
    of_trees: bool = False
    """By the sum over each and all below it, where the measure can be summed."""

    @property
    def falling(self) -> bool:
        """Whether the largest comes first."""
        return self.measure.falling != self.reversed

    @property
    def summed(self) -> bool:
        """Whether sums are compared."""
        return self.of_trees and self.measure.sums


@dataclass(frozen=True)
class Ranking:
    """What each instance is sorted by."""

    sort: Sort = field(default_factory=Sort)
    values: Mapping[str, Any] = field(default_factory=dict)
    _late: frozenset[str] = frozenset()
    """Whose values may be others by now."""

    def after(self, world: World, change: Change, sort: Sort, now: bool) -> "Ranking":
        """The same after a change, itself where nothing is different; nor are its `values` another object then.

        Live values stay what they were until they are wanted `now`, but for those of who came since.
        """
        if sort == Sort():
            # What they are in before they are sorted.
            return self if self.sort == sort else Ranking()
        measure = sort.measure
        if change.everything or measure is not self.sort.measure or self.sort == Sort():
            value = measure.of(world)
            return Ranking(sort, {i: value(instance) for i, instance in world.instances.items()})
        touched = (change.ids if measure.counted else change.shown) | self._late
        late: frozenset[str] = frozenset()
        if measure.live and not now:
            fresh = frozenset(i for i in touched if (i in world.instances) != (i in self.values))
            touched, late = fresh, touched - fresh
        elif measure.timed:
            touched = frozenset(self.values.keys() | touched)
        values = self._with(world, measure, touched)
        same = values is self.values and late == self._late and sort == self.sort
        return self if same else Ranking(sort, values, late)

    def _with(self, world: World, measure: Measure, touched: frozenset[str]) -> Mapping[str, Any]:
        """The values, with those of some instances as they are in the world."""
        if not touched:
            return self.values
        known, value = world.instances, measure.of(world)
        different: dict[str, Any] = {}
        gone: list[str] = []
        for instance_id in touched:
            instance = known.get(instance_id)
            if instance is not None:
                found = value(instance)
                if self.values.get(instance_id, _UNKNOWN) != found:
                    different[instance_id] = found
            elif instance_id in self.values:
                gone.append(instance_id)
        if not different and not gone:
            return self.values
        values = {**self.values, **different}
        for instance_id in gone:
            del values[instance_id]
        return values


def ordered(ids: Sequence[str], values: Mapping[str, Any], falling: bool) -> list[str]:
    """The ids by their values, those of one value in the order given, and those without a value last in any case."""
    known = [instance_id for instance_id in ids if values[instance_id] is not None]
    found = sorted(known, key=values.__getitem__, reverse=falling)
    return found if len(found) == len(ids) else found + [i for i in ids if values[i] is None]
