"""Every instance below its source, with siblings in a given order. Pure, and iterative: depth has no bound."""

from collections.abc import Mapping, Sequence, Set
from itertools import chain
from typing import Any, NamedTuple

from forktui.model.world import World


class Preorder(NamedTuple):
    """Every instance, its depth, how far above it its source is (0 for a root), and how many are below it.

    Nothing of it says where it begins: two of them one after the other are one.
    """

    ids: list[str]
    depths: list[int]
    up: list[int]
    below: list[int]

    def part(self, begin: int, end: int) -> "Preorder":
        """Some whole trees of it."""
        return Preorder(self.ids[begin:end], self.depths[begin:end], self.up[begin:end], self.below[begin:end])


def preorder(ordered: Sequence[str], world: World) -> Preorder:
    """Every instance below its source, siblings in the given order; one whose source is unknown is a root.

    `ordered` are all, or some that have all their sources and forks among them.
    """
    roots: list[str] = []
    forks: dict[str, list[str]] = {}
    instances = world.instances
    for instance_id in reversed(ordered):
        source = instances[instance_id].source_id
        if source is None or source not in instances:
            roots.append(instance_id)
        elif source in forks:
            forks[source].append(instance_id)
        else:
            forks[source] = [instance_id]
    found = Preorder([], [], [], [])
    _descend(roots, forks, frozenset(), found)
    if len(found.ids) < len(ordered):
        # Only a supervisor that is wrong tells of sources in a circle; its instances are shown all the same.
        known = set(found.ids)
        for instance_id in ordered:
            if instance_id not in known:
                known.add(instance_id)
                begin = len(found.ids)
                _descend([instance_id], forks, known, found)
                known.update(found.ids[begin:])
    up, below = found.up, [0] * len(found.ids)
    for index in range(len(below) - 1, -1, -1):
        if distance := up[index]:
            below[index - distance] += below[index] + 1
    return found._replace(below=below)


def joined(parts: Sequence[Preorder]) -> Preorder:
    """All of them, one after the other."""
    columns = zip(*parts, strict=True)
    return Preorder(*(list(chain.from_iterable(column)) for column in columns)) if parts else Preorder([], [], [], [])


def tree_sums(values: Mapping[str, Any], placed: Preorder) -> dict[str, Any]:
    """The sum of the values over each instance and all below it; what has no value adds nothing."""
    sums = [values[instance_id] or 0 for instance_id in placed.ids]
    up = placed.up
    for index in range(len(sums) - 1, -1, -1):
        if distance := up[index]:
            sums[index - distance] += sums[index]
    return dict(zip(placed.ids, sums, strict=True))


def _descend(pending: list[str], forks: Mapping[str, list[str]], known: Set[str], found: Preorder) -> None:
    """Add the trees of the roots, but what is known; roots are taken from the end, as are the forks of each."""
    ids, depths, up, _ = found
    ends: list[tuple[int, int, int]] = []
    # How many were pending before the forks that are being added, the place of their source, and their depth.
    remaining, parent, depth = 0, -1, 0
    while pending:
        if len(pending) == remaining:
            remaining, parent, depth = ends.pop()
            continue
        instance_id = pending.pop()
        up.append(len(ids) - parent if depth else 0)
        ids.append(instance_id)
        depths.append(depth)
        if (below := forks.get(instance_id)) is not None:
            ends.append((remaining, parent, depth))
            remaining, parent, depth = len(pending), len(ids) - 1, depth + 1
            pending += [fork for fork in below if fork not in known] if known else below
