"""The trees as they grew: roots, and the forks of each source, in the order in which they were made. Pure.

What came, went or moved costs the trees that it was in and is in.
"""

from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from immutables import Map

from forktui.model.change import Change
from forktui.model.preorder import Preorder, joined, preorder
from forktui.model.sorting import created
from forktui.model.world import World


@dataclass(frozen=True)
class TreesByRoot:
    """Every tree of a world by its root."""

    whole: Preorder = field(default_factory=lambda: Preorder([], [], [], []))
    """All trees, one after the other."""
    _roots: Sequence[str] = ()
    _trees: Mapping[str, Preorder] = field(default_factory=dict)
    _root_of: Map[str, str] = field(default_factory=Map)
    _circular: bool = False
    """Whether some have their sources in a circle, which no tree has: then all are laid out anew."""

    def after(self, world: World, change: Change) -> "TreesByRoot":
        """The same after a change; itself where nothing came, went or moved."""
        if change.everything or (change.moved and self._circular):
            return _all_of(world)
        if not change.moved:
            return self
        touched = self._touched(world, change.moved)
        members = set(change.moved).union(*(self._trees[root].ids for root in touched))
        fresh = preorder(_by_creation(world, members), world)
        trees, root_of = dict(self._trees), self._root_of.mutate()
        for root in touched:
            del trees[root]
        for member in members:
            if member not in world.instances:
                root_of.pop(member, None)
        roots = [root for root in self._roots if root not in touched]
        for root, tree in _trees(fresh):
            if _is_circular(world, root):
                return _all_of(world)
            trees[root] = tree
            for member in tree.ids:
                if root_of.get(member) != root:
                    root_of[member] = root
            insort(roots, root, key=lambda one: created(world.instances[one]))
        return TreesByRoot(joined([trees[root] for root in roots]), roots, trees, root_of.finish())

    def _touched(self, world: World, moved: Iterable[str]) -> set[str]:
        """The roots of the trees that these were in, and of those that they are in now or have forks in."""
        near = set(moved)
        for instance_id in moved:
            near.update(world.forks_of(instance_id))
            if (instance := world.instances.get(instance_id)) is not None and instance.source_id is not None:
                near.add(instance.source_id)
        return {self._root_of[instance_id] for instance_id in near if instance_id in self._root_of}


def _all_of(world: World) -> TreesByRoot:
    """All trees from the beginning."""
    whole = preorder(_by_creation(world, world.instances), world)
    trees = dict(_trees(whole))
    root_of = Map({instance_id: root for root, tree in trees.items() for instance_id in tree.ids})
    return TreesByRoot(whole, list(trees), trees, root_of, any(_is_circular(world, root) for root in trees))


def _by_creation(world: World, instance_ids: Iterable[str]) -> list[str]:
    known = [world.instances[instance_id] for instance_id in instance_ids if instance_id in world.instances]
    return [instance.id for instance in sorted(known, key=created)]


def _trees(placed: Preorder) -> Iterator[tuple[str, Preorder]]:
    begins = [index for index, depth in enumerate(placed.depths) if not depth]
    return ((placed.ids[begin], placed.part(begin, end)) for begin, end in pairwise([*begins, len(placed.ids)]))


def _is_circular(world: World, root: str) -> bool:
    return world.instances[root].source_id in world.instances
