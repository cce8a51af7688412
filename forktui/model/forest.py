"""The fork forest as rows: which instance is on which line, at which depth. Pure, and iterative: depth has no bound.

What one step of it is made of is kept, so that a key costs the last steps, and a change what it changes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from forktui.model.change import EVERYTHING, Change
from forktui.model.filter import Filter
from forktui.model.matches import Matches
from forktui.model.preorder import Preorder, preorder, tree_sums
from forktui.model.sorting import Ranking, Sort, ordered
from forktui.model.tree_rows import Rows, visible
from forktui.model.trees_by_root import TreesByRoot
from forktui.model.world import World


@dataclass(frozen=True)
class View:
    """What the operator wants to see of the forest."""

    sort: Sort = field(default_factory=Sort)
    filter: Filter = field(default_factory=Filter)
    collapsed: frozenset[str] = frozenset()
    hides_ended: bool = False
    """Whether those that have ended are shown only where they lead to another."""


@dataclass(frozen=True)
class Forest:
    """The rows of a world, and what they are made of."""

    view: View = field(default_factory=View)
    rows: Rows = field(default_factory=Rows)
    sums: Mapping[str, Any] = field(default_factory=dict)
    """Over each instance and all below it, where that is what they are sorted by."""
    _trees: TreesByRoot = field(default_factory=TreesByRoot)
    _ranking: Ranking = field(default_factory=Ranking)
    _preorder: Preorder = field(default_factory=lambda: Preorder([], [], [], []))
    _matches: Matches = field(default_factory=Matches)

    def after(self, world: World, change: Change, view: View, sorts: bool = True) -> "Forest":
        """The forest of a world after a change, as it is to be seen; itself where nothing is different.

        Where it does not sort, rows stay in the order of the live values that they were in.
        """
        trees = self._trees.after(world, change)
        ranking = self._ranking.after(world, change, view.sort, sorts)
        found, sums = self._preorder, self.sums
        if trees is not self._trees or ranking.values is not self._ranking.values or view.sort != self.view.sort:
            found, sums = _sorted(world, trees, ranking)
            found = self._preorder if found == self._preorder else found
        matches = self._matches.after(world, change, view.filter, view.hides_ended)
        if found is self._preorder and view == self.view and matches.ids is self._matches.ids:
            if ranking is self._ranking and sums is self.sums and trees is self._trees and matches is self._matches:
                return self
            return Forest(view, self.rows, sums, trees, ranking, found, matches)
        rows = visible(found, view.collapsed, matches.among(found.ids))
        return Forest(view, rows, sums, trees, ranking, found, matches)

    @property
    def matching(self) -> list[str]:
        """All that is looked for, top to bottom, also where it is below a closed row."""
        return self._matching(self._preorder.ids)

    def tree(self, instance_id: str) -> list[str]:
        """Which of an instance and all below it are looked for, also where they are below a closed row."""
        begin = self._preorder.ids.index(instance_id)
        return self._matching(self._preorder.ids[begin : begin + self._preorder.below[begin] + 1])

    def below(self, instance_id: str) -> frozenset[str]:
        """All below an instance, looked for or not."""
        begin = self._preorder.ids.index(instance_id)
        return frozenset(self._preorder.ids[begin + 1 : begin + self._preorder.below[begin] + 1])

    @property
    def found(self) -> int:
        """How many are looked for."""
        return len(self._preorder.ids) if self._matches.ids is None else len(self._matches.ids)

    def _matching(self, ids: Sequence[str]) -> list[str]:
        found = self._matches.ids
        return [instance_id for instance_id in ids if found is None or instance_id in found]


def rows(world: World, view: View | None = None) -> Rows:
    """The visible lines, top to bottom.

    An instance whose source is unknown is a root. With a filter, the instances that it matches and their sources up to
    the root are shown.
    """
    return forest(world, view).rows


def forest(world: World, view: View | None = None) -> Forest:
    """The forest of a world from the beginning."""
    return Forest().after(world, EVERYTHING, view or View())


def descendants(world: World, instance_id: str) -> list[str]:
    """The ids of every instance below this one, sources before their forks, and siblings as they were made."""
    known, found = {instance_id}, []
    pending = [instance_id]
    while pending:
        for fork in sorted(world.forks_of(pending.pop()), key=lambda one: (world.instances[one].number, one)):
            if fork not in known:
                known.add(fork)
                found.append(fork)
                if fork in world.forks:
                    pending.append(fork)
    return found


def _sorted(world: World, trees: TreesByRoot, ranking: Ranking) -> tuple[Preorder, Mapping[str, Any]]:
    """The forest as it is sorted, and the sums that it is sorted by."""
    if ranking.sort == Sort():
        return trees.whole, {}
    values, sums = ranking.values, {}
    if ranking.sort.summed:
        values = sums = tree_sums(values, trees.whole)
    # As they grew, so that those of one value are in the order in which they were made.
    return preorder(ordered(trees.whole.ids, values, ranking.sort.falling), world), sums
