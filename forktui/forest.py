"""The fork forest as rows: which instance is on which line, at which depth. Pure, and iterative: depth has no bound."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from forktui.world import World
from supervisor.models import Instance


class Order(StrEnum):
    """What the children of one source, and the roots, are sorted by."""

    CREATED = "created"
    NAME = "name"
    STATE = "state"
    FAULTS = "faults"
    PRIVATE = "private memory"


@dataclass(frozen=True, slots=True)
class Row:
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


@dataclass(frozen=True, slots=True)
class _Node:
    instance: Instance
    depth: int
    parent: int


def rows(
    world: World, *, collapsed: frozenset[str] = frozenset(), query: str = "", order: Order = Order.CREATED
) -> list[Row]:
    """The visible lines, top to bottom.

    An instance whose source is unknown is a root. With a query, the instances that it matches and their sources up to
    the root are shown, collapsed or not.
    """
    nodes = _preorder(world, order)
    matches = _matches(world, nodes, query)
    below = [0] * len(nodes)
    shown = list(matches)
    for index in range(len(nodes) - 1, -1, -1):
        parent = nodes[index].parent
        if parent >= 0:
            below[parent] += below[index] + 1
            shown[parent] = shown[parent] or shown[index]
    if not query:
        shown = _expanded(nodes, collapsed)
    return _rows(nodes, shown, matches, below, frozenset() if query else collapsed)


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


def _preorder(world: World, order: Order) -> list[_Node]:
    instances = sorted(world.instances.values(), key=_sort_key(world, order))
    children = _children(instances, world.instances)
    nodes: list[_Node] = []
    known: set[str] = set()

    def visit(root: Instance) -> None:
        pending = [_Node(root, 0, -1)]
        while pending:
            node = pending.pop()
            if node.instance.id in known:
                continue
            known.add(node.instance.id)
            index = len(nodes)
            nodes.append(node)
            below = children.get(node.instance.id, ())
            pending.extend(_Node(child, node.depth + 1, index) for child in reversed(below))

    for root in children.get(None, ()):
        visit(root)
    # Only a supervisor that is wrong tells of sources in a circle; its instances are shown all the same.
    for instance in instances:
        if instance.id not in known:
            visit(instance)
    return nodes


def _children(instances: Iterable[Instance], known: Mapping[str, Instance]) -> dict[str | None, list[Instance]]:
    """The children by their source's id, in the given order; the roots under None."""
    children: dict[str | None, list[Instance]] = {}
    for instance in instances:
        children.setdefault(instance.source_id if instance.source_id in known else None, []).append(instance)
    return children


def _sort_key(world: World, order: Order) -> Callable[[Instance], tuple[Any, ...]]:
    def first(instance: Instance) -> Any:
        match order:
            case Order.CREATED:
                return 0
            case Order.NAME:
                return _natural(instance.name)
            case Order.STATE:
                return instance.state.value
            case Order.FAULTS:
                return -world.statistics_of(instance.id).faults
            case Order.PRIVATE:
                return -world.statistics_of(instance.id).private_bytes

    return lambda instance: (first(instance), instance.created_at, instance.id)


def _natural(name: str) -> list[str | int]:
    """`fork-10` after `fork-2`: text and numbers in turn."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", name)]


def _matches(world: World, nodes: Sequence[_Node], query: str) -> list[bool]:
    words = query.lower().split()
    return [all(word in _searchable(node.instance) for word in words) for node in nodes]


def _searchable(instance: Instance) -> str:
    words = [instance.name, instance.id, instance.image, instance.state, instance.hypervisor]
    words += [instance.memory_backend or "", instance.fork_kind or ""]
    words += ["locked"] if instance.mem_locked else []
    words += ["recording"] if instance.recording else []
    return " ".join(words).lower()


def _expanded(nodes: Sequence[_Node], collapsed: frozenset[str]) -> list[bool]:
    shown: list[bool] = []
    for node in nodes:
        parent = node.parent
        shown.append(parent < 0 or (shown[parent] and nodes[parent].instance.id not in collapsed))
    return shown


def _rows(
    nodes: Sequence[_Node], shown: Sequence[bool], matches: Sequence[bool], below: Sequence[int], closed: frozenset[str]
) -> list[Row]:
    result: list[Row] = []
    row_of: dict[int, int] = {-1: -1}
    for index, node in enumerate(nodes):
        if shown[index]:
            row_of[index] = len(result)
            expanded = below[index] > 0 and node.instance.id not in closed
            parent = row_of[node.parent]
            result.append(Row(node.instance.id, node.depth, parent, False, below[index], expanded, matches[index]))
    parents: set[int] = set()
    for position in range(len(result) - 1, -1, -1):
        row = result[position]
        if row.parent not in parents:
            parents.add(row.parent)
            result[position] = replace(row, last=True)
    return result
