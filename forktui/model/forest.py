"""The fork forest as rows: which instance is on which line, at which depth. Pure, and iterative: depth has no bound.

What one step of it is made of is kept, so that a key costs the last steps, and a change what it changes.
"""

import re
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from enum import StrEnum
from operator import attrgetter
from typing import Any, Final, NamedTuple, overload

from forktui.model.change import Change
from forktui.model.world import World
from supervisor.models import Instance


class Order(StrEnum):
    """What the children of one source, and the roots, are sorted by."""

    CREATED = "created"
    NAME = "name"
    STATE = "state"
    FAULTS = "faults"
    PRIVATE = "private memory"


_COUNTED: Final = frozenset({Order.FAULTS, Order.PRIVATE})
"""The orders by what statistics tell."""


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


class _Columns(NamedTuple):
    """Rows by what is said of each: making ten thousand of them one by one would take most of the time."""

    ids: Sequence[str]
    depths: Sequence[int]
    parents: Sequence[int]
    below: Sequence[int]
    last: Sequence[bool]
    matches: Sequence[bool] | None
    """None where all do."""


class Rows(Sequence[Row]):
    """The visible lines, top to bottom."""

    def __init__(self, columns: _Columns, closed: frozenset[str]) -> None:
        self._columns = columns
        self._closed = closed
        self.position: Mapping[str, int] = dict(zip(columns.ids, range(len(columns.ids)), strict=True))
        """The place of each, by its id."""

    @property
    def ids(self) -> Sequence[str]:
        """The ids alone."""
        return self._columns.ids

    def __len__(self) -> int:
        return len(self._columns.ids)

    @overload
    def __getitem__(self, position: int) -> Row: ...
    @overload
    def __getitem__(self, position: slice) -> list[Row]: ...
    def __getitem__(self, position: int | slice) -> Row | list[Row]:
        if isinstance(position, slice):
            return [self._row(index) for index in range(*position.indices(len(self)))]
        return self._row(position if position >= 0 else position + len(self))

    def _row(self, index: int) -> Row:
        if index < 0:
            raise IndexError(index)
        ids, depths, parents, below, last, matches = self._columns
        expanded = below[index] > 0 and ids[index] not in self._closed
        return Row(
            ids[index],
            depths[index],
            parents[index],
            last[index],
            below[index],
            expanded,
            matches is None or matches[index],
        )


class _Preorder(NamedTuple):
    """Every instance, its depth, the place of its source (-1 for a root), and how many are below it."""

    ids: list[str]
    depths: list[int]
    parents: list[int]
    below: list[int]


@dataclass(frozen=True)
class View:
    """What the operator wants to see of the forest."""

    order: Order = Order.CREATED
    query: str = ""
    collapsed: frozenset[str] = frozenset()

    @property
    def words(self) -> list[str]:
        """All of which a row must have."""
        return self.query.lower().split()


@dataclass(frozen=True)
class Forest:
    """The rows of a world, and what they are made of."""

    view: View = field(default_factory=View)
    rows: Rows = field(default_factory=lambda: Rows(_Columns((), (), (), (), (), None), frozenset()))
    _keys: Mapping[str, Any] = field(default_factory=dict)
    """What each instance is sorted by."""
    _sorted: Sequence[str] = ()
    _preorder: _Preorder = field(default_factory=lambda: _Preorder([], [], [], []))
    _texts: Mapping[str, str] = field(default_factory=dict)
    """What each instance is searched in, where there is anything to search for."""

    def after(self, world: World, change: Change, view: View) -> "Forest":
        """The forest of a world after a change, as it is to be seen; itself where no row is different."""
        keys = self._keys_after(world, change, view)
        if change.everything or change.forest or keys is not self._keys:
            placed = [i for i in self._sorted if i in keys]
            placed += keys.keys() - self._keys.keys()
            ordered: Sequence[str] = sorted(placed, key=keys.__getitem__)
            preorder = _preorder(ordered, world)
        else:
            ordered, preorder = self._sorted, self._preorder
        texts = self._texts_after(world, change, view)
        if preorder is self._preorder and view == self.view and (texts is self._texts or not view.words):
            return self if texts is self._texts else Forest(view, self.rows, keys, ordered, preorder, texts)
        return Forest(view, _rows(preorder, view, texts), keys, ordered, preorder, texts)

    def _keys_after(self, world: World, change: Change, view: View) -> Mapping[str, Any]:
        """The sort keys, the same object where none is different."""
        key = _KEYS[view.order]
        if change.everything or view.order is not self.view.order:
            return {i: key(world, instance) for i, instance in world.instances.items()}
        new: dict[str, Any] = {}
        gone: list[str] = []
        for instance_id in change.ids if view.order in _COUNTED else change.shown:
            instance = world.instances.get(instance_id)
            if instance is None:
                gone.append(instance_id)
            elif self._keys.get(instance_id) != (found := key(world, instance)):
                new[instance_id] = found
        if not new and not any(i in self._keys for i in gone):
            return self._keys
        keys = {**self._keys, **new}
        for instance_id in gone:
            keys.pop(instance_id, None)
        return keys

    def _texts_after(self, world: World, change: Change, view: View) -> Mapping[str, str]:
        """The searchable texts, the same object where none is different."""
        if not view.words:
            return {} if self._texts else self._texts
        if change.everything or not self.view.words:
            return {i: _searchable(instance) for i, instance in world.instances.items()}
        different = {
            i: text
            for i in change.shown
            if (text := _searchable(world.instances[i]) if i in world.instances else "") != self._texts.get(i, "")
        }
        return {i: text for i, text in {**self._texts, **different}.items() if text} if different else self._texts


def rows(
    world: World, *, collapsed: frozenset[str] = frozenset(), query: str = "", order: Order = Order.CREATED
) -> Rows:
    """The visible lines, top to bottom.

    An instance whose source is unknown is a root. With a query, the instances that it matches and their sources up to
    the root are shown, collapsed or not.
    """
    return Forest().after(world, Change(everything=True), View(order, query, collapsed)).rows


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


def _preorder(ordered: Sequence[str], world: World) -> _Preorder:
    """Every instance below its source, siblings in the given order."""
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
    found = _Preorder([], [], [], [])
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


def _descend(pending: list[str], forks: Mapping[str, list[str]], known: Set[str], found: _Preorder) -> None:
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


def _rows(preorder: _Preorder, view: View, texts: Mapping[str, str]) -> Rows:
    """The rows that are to be seen."""
    words = view.words
    if words:
        found = [all(word in text for word in words) for text in map(texts.__getitem__, preorder.ids)]
        shown = _with_sources(preorder.parents, found)
        chosen: Sequence[int] = [index for index, is_shown in enumerate(shown) if is_shown]
        return Rows(_columns(preorder, chosen, found), frozenset())
    if not view.collapsed:
        ids, depths, parents, below = preorder
        return Rows(_Columns(ids, depths, parents, below, _last(parents), None), frozenset())
    return Rows(_columns(preorder, _opened(preorder, view.collapsed), None), view.collapsed)


def _opened(preorder: _Preorder, collapsed: frozenset[str]) -> list[int]:
    """The places of the instances that have no collapsed one above them."""
    ids, below, index = preorder.ids, preorder.below, 0
    found: list[int] = []
    while index < len(ids):
        found.append(index)
        index += 1 + (below[index] if ids[index] in collapsed else 0)
    return found


def _with_sources(parents: Sequence[int], matches: Sequence[bool]) -> list[bool]:
    """Which instances match, or have one that does below them."""
    shown = list(matches)
    for index in range(len(shown) - 1, -1, -1):
        if shown[index] and parents[index] >= 0:
            shown[parents[index]] = True
    return shown


def _columns(preorder: _Preorder, chosen: Sequence[int], matches: Sequence[bool] | None) -> _Columns:
    """What is said of the chosen instances, all of whose sources are chosen."""

    def of(values: Sequence[Any]) -> list[Any]:
        return [values[index] for index in chosen]

    row_of = dict(zip(chosen, range(len(chosen)), strict=True))
    row_of[-1] = -1
    parents = [row_of[parent] for parent in of(preorder.parents)]
    ids, depths, below = of(preorder.ids), of(preorder.depths), of(preorder.below)
    return _Columns(ids, depths, parents, below, _last(parents), None if matches is None else of(matches))


def _last(parents: Sequence[int]) -> list[bool]:
    """Which rows have no sibling below them."""
    last = [False] * len(parents)
    seen: set[int] = set()
    for row in range(len(parents) - 1, -1, -1):
        if (parent := parents[row]) not in seen:
            seen.add(parent)
            last[row] = True
    return last


_created: Final[Callable[[Instance], tuple[Any, ...]]] = attrgetter("number", "created_at", "id")

_KEYS: Final[Mapping[Order, Callable[[World, Instance], Any]]] = {
    Order.CREATED: lambda world, one: _created(one),
    Order.NAME: lambda world, one: (_natural(one.name), _created(one)),
    Order.STATE: lambda world, one: (one.state.value, _created(one)),
    Order.FAULTS: lambda world, one: (-world.statistics_of(one.id).faults, _created(one)),
    Order.PRIVATE: lambda world, one: (-world.statistics_of(one.id).private_bytes, _created(one)),
}


def _natural(name: str) -> list[str | int]:
    """`fork-10` after `fork-2`: text and numbers in turn."""
    return [int(part) if place % 2 else part for place, part in enumerate(re.split(r"([0-9]+)", name))]


def _searchable(instance: Instance) -> str:
    words = [instance.name, instance.id, instance.image, instance.state, instance.hypervisor]
    words += [instance.memory_backend or "", instance.fork_kind or ""]
    words += ["locked"] if instance.mem_locked else []
    words += ["recording"] if instance.recording else []
    return " ".join(words).lower()
