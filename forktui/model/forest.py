"""The fork forest as rows: which instance is on which line, at which depth. Pure, and iterative: depth has no bound."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import StrEnum
from operator import attrgetter
from typing import Any, NamedTuple

from forktui.model.world import World
from supervisor.models import Instance


class Order(StrEnum):
    """What the children of one source, and the roots, are sorted by."""

    CREATED = "created"
    NAME = "name"
    STATE = "state"
    FAULTS = "faults"
    PRIVATE = "private memory"


class Row(NamedTuple):
    """One line of the tree. `parent` is the row of the source, -1 for a root."""

    id: str
    depth: int
    parent: int
    last: bool
    """No sibling below it."""
    descendants: int
    """All instances below it, shown or not."""
    expanded: bool
    matches: bool
    """False for a row that only leads to a row which the filter matches."""


class _Preorder(NamedTuple):
    """Every instance, its depth and the index of its source, -1 for a root; sources before their forks."""

    instances: list[Instance]
    depths: list[int]
    parents: list[int]


def rows(
    world: World, *, collapsed: frozenset[str] = frozenset(), query: str = "", order: Order = Order.CREATED
) -> list[Row]:
    """The visible lines, top to bottom.

    An instance whose source is unknown is a root. With a query, the instances that it matches and their sources up to
    the root are shown, collapsed or not.
    """
    forest = _preorder(world, order)
    words = query.lower().split()
    if not words:
        return _rows(forest, _expanded(forest, collapsed), [True] * len(forest.instances), collapsed)
    matches = [all(word in _searchable(instance) for word in words) for instance in forest.instances]
    return _rows(forest, _with_sources(forest, matches), matches, frozenset())


def descendants(world: World, instance_id: str) -> list[str]:
    """The ids of every instance below this one, sources before their forks."""
    children = _children(world.instances.values(), world.instances)
    found: list[str] = []
    known = {instance_id}
    pending = [instance_id]
    while pending:
        for child in children.get(pending.pop(), ()):
            if child.id not in known:
                known.add(child.id)
                found.append(child.id)
                pending.append(child.id)
    return found


def _preorder(world: World, order: Order) -> _Preorder:
    instances = sorted(world.instances.values(), key=_sort_key(world, order))
    children = _children(instances, world.instances)
    forest = _Preorder([], [], [])
    known: set[str] = set()

    def visit(roots: Iterable[Instance]) -> None:
        levels = [(iter(roots), 0, -1)]
        while levels:
            siblings, depth, parent = levels[-1]
            instance = next(siblings, None)
            if instance is None:
                levels.pop()
            elif instance.id not in known:
                known.add(instance.id)
                if instance.id in children:
                    levels.append((iter(children[instance.id]), depth + 1, len(forest.instances)))
                forest.instances.append(instance)
                forest.depths.append(depth)
                forest.parents.append(parent)

    visit(children.get(None, ()))
    # Only a supervisor that is wrong tells of sources in a circle; its instances are shown all the same.
    visit(instances)
    return forest


def _children(instances: Iterable[Instance], known: Mapping[str, Instance]) -> dict[str | None, list[Instance]]:
    """The children by their source's id, in the given order; the roots under None."""
    children: dict[str | None, list[Instance]] = {}
    for instance in instances:
        children.setdefault(instance.source_id if instance.source_id in known else None, []).append(instance)
    return children


def _sort_key(world: World, order: Order) -> Callable[[Instance], Any]:
    created = attrgetter("number", "created_at", "id")
    keys: dict[Order, Callable[[Instance], Any]] = {
        Order.CREATED: created,
        Order.NAME: lambda instance: (_natural(instance.name), created(instance)),
        Order.STATE: lambda instance: (instance.state.value, created(instance)),
        Order.FAULTS: lambda instance: (-world.statistics_of(instance.id).faults, created(instance)),
        Order.PRIVATE: lambda instance: (-world.statistics_of(instance.id).private_bytes, created(instance)),
    }
    return keys[order]


def _natural(name: str) -> list[str | int]:
    """`fork-10` after `fork-2`: text and numbers in turn."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _searchable(instance: Instance) -> str:
    words = [instance.name, instance.id, instance.image, instance.state, instance.hypervisor]
    words += [instance.memory_backend or "", instance.fork_kind or ""]
    words += ["locked"] if instance.mem_locked else []
    words += ["recording"] if instance.recording else []
    return " ".join(words).lower()


def _with_sources(forest: _Preorder, matches: Sequence[bool]) -> list[bool]:
    """Which instances match, or have one that does below them."""
    shown = list(matches)
    for index in range(len(shown) - 1, -1, -1):
        if shown[index] and forest.parents[index] >= 0:
            shown[forest.parents[index]] = True
    return shown


def _expanded(forest: _Preorder, collapsed: frozenset[str]) -> list[bool]:
    """Which instances have no collapsed one above them."""
    shown: list[bool] = []
    for parent in forest.parents:
        shown.append(parent < 0 or (shown[parent] and forest.instances[parent].id not in collapsed))
    return shown


def _rows(forest: _Preorder, shown: Sequence[bool], matches: Sequence[bool], closed: frozenset[str]) -> list[Row]:
    """The rows of the instances that are shown; from the last to the first it is known what is below, and beside."""
    count = len(forest.instances)
    below, last, parents_seen = [0] * count, [False] * count, set[int]()
    for index in range(count - 1, -1, -1):
        parent = forest.parents[index]
        if parent >= 0:
            below[parent] += below[index] + 1
        if shown[index] and parent not in parents_seen:
            parents_seen.add(parent)
            last[index] = True
    result: list[Row] = []
    row_of = {-1: -1}
    for index, (instance, depth, parent) in enumerate(zip(*forest, strict=True)):
        if shown[index]:
            row_of[index] = len(result)
            expanded = below[index] > 0 and instance.id not in closed
            result.append(Row(instance.id, depth, row_of[parent], last[index], below[index], expanded, matches[index]))
    return result
