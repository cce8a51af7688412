"""Every instance below its source, with siblings in a given order. Pure, and iterative: depth has no bound."""

from collections.abc import Mapping, Sequence, Set
from typing import Any, NamedTuple

from forktui.model.world import World


class Preorder(NamedTuple):
    """Every instance, its depth, the place of its source (-1 for a root), and how many are below it."""

    ids: list[str]
    depths: list[int]
    parents: list[int]
    below: list[int]


def preorder(ordered: Sequence[str], world: World) -> Preorder:
    """Every instance below its source, siblings in the given order; one whose source is unknown is a root."""
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
    parents, below = found.parents, [0] * len(found.ids)
    for index in range(len(below) - 1, -1, -1):
        if (parent := parents[index]) >= 0:
            below[parent] += below[index] + 1
    return found._replace(below=below)


def tree_sums(values: Mapping[str, Any], placed: Preorder) -> dict[str, Any]:
    """The sum of the values over each instance and all below it; what has no value adds nothing."""
    sums = [values[instance_id] or 0 for instance_id in placed.ids]
    parents = placed.parents
    for index in range(len(sums) - 1, -1, -1):
        if (parent := parents[index]) >= 0:
            sums[parent] += sums[index]
    return dict(zip(placed.ids, sums, strict=True))


def _descend(pending: list[str], forks: Mapping[str, list[str]], known: Set[str], found: Preorder) -> None:
    """Add the trees of the roots, but what is known; roots are taken from the end, as are the forks of each."""
    ids, depths, parents, _ = found
    ends: list[tuple[int, int, int]] = []
    # How many were pending before the forks that are being added, the place of their source, and their depth.
    remaining, parent, depth = 0, -1, 0
    while pending:
        if len(pending) == remaining:
            remaining, parent, depth = ends.pop()
            continue
        instance_id = pending.pop()
        ids.append(instance_id)
        depths.append(depth)
        parents.append(parent)
        if (below := forks.get(instance_id)) is not None:
            ends.append((remaining, parent, depth))
            remaining, parent, depth = len(pending), len(ids) - 1, depth + 1
            pending += [fork for fork in below if fork not in known] if known else below
