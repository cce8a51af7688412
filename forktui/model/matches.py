"""Who is looked for: what the filter finds, but for what has ended where that is hidden. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from forktui.model.change import Change
from forktui.model.filter import Filter, Predicate, has_ended
from forktui.model.world import World


@dataclass(frozen=True)
class Matches:
    """Which instances are looked for, kept from one change to the next."""

    ids: frozenset[str] | None = None
    """None where all are; the same object where none is different."""
    _filter: Filter = field(default_factory=Filter)
    _hides_ended: bool = False
    _templates: frozenset[tuple[str, str]] = frozenset()
    """Each template and the name of its instance, where the filter asks for that."""

    def after(self, world: World, change: Change, wanted: Filter, hides_ended: bool) -> "Matches":
        """The same after a change; itself where nothing is different."""
        if not wanted and not hides_ended:
            return self if self.ids is None and not self._filter else Matches()
        looks_for, templates = _predicate(world, wanted, hides_ended), _templates(world, wanted)
        same = (wanted, hides_ended, templates) == (self._filter, self._hides_ended, self._templates)
        if self.ids is None or change.everything or not same:
            ids = frozenset(i for i, instance in world.instances.items() if looks_for(instance))
            return Matches(ids, wanted, hides_ended, templates)
        touched = change.ids if wanted.counted else change.shown
        now = frozenset(i for i in touched if i in world.instances and looks_for(world.instances[i]))
        if now == self.ids & touched:
            return self
        return Matches((self.ids - touched) | now, wanted, hides_ended, templates)

    def among(self, ids: Sequence[str]) -> list[bool] | None:
        """Which of these are looked for; None where all are."""
        return None if self.ids is None else list(map(self.ids.__contains__, ids))


def _predicate(world: World, wanted: Filter, hides_ended: bool) -> Predicate:
    found = wanted.predicate(world)
    return (lambda instance: not has_ended(instance) and found(instance)) if hides_ended else found


def _templates(world: World, wanted: Filter) -> frozenset[tuple[str, str]]:
    if not wanted.related:
        return frozenset()
    sources = ((template, world.instances.get(template.instance_id)) for template in world.templates.values())
    return frozenset((template.id, source.name) for template, source in sources if source is not None)
