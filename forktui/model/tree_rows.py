"""The visible lines of the fork tree: which instance is on which, at which depth. Pure."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple, overload

from forktui.model.preorder import Preorder


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
    up: Sequence[int]
    below: Sequence[int]
    shown: Sequence[int]
    """How many rows are below each."""
    matches: Sequence[bool] | None
    """None where all do."""


_NO_COLUMNS = _Columns((), (), (), (), (), None)


class Rows(Sequence[Row]):
    """The visible lines, top to bottom."""

    def __init__(self, columns: _Columns = _NO_COLUMNS, closed: frozenset[str] = frozenset()) -> None:
        self._columns = columns
        self._closed = closed

    @cached_property
    def position(self) -> Mapping[str, int]:
        """The place of each, by its id; to make it costs more than to look for a few of ten thousand."""
        return dict(zip(self._columns.ids, range(len(self)), strict=True))

    def place(self, instance_id: str) -> int:
        """The place of one; -1 where it is not shown."""
        if "position" in self.__dict__:
            return self.position.get(instance_id, -1)
        try:
            return self._columns.ids.index(instance_id)
        except ValueError:
            return -1

    @property
    def ids(self) -> Sequence[str]:
        """The ids alone."""
        return self._columns.ids

    def matches(self, index: int) -> bool:
        """Whether the row is one that is looked for."""
        return self._columns.matches is None or self._columns.matches[index]

    def match(self, begin: int, step: int = 1) -> int:
        """The first row from one on, downwards or upwards, that is looked for; -1 where there is none."""
        end = len(self) if step > 0 else -1
        return next((index for index in range(begin, end, step) if self.matches(index)), -1)

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
        ids, depths, up, below, shown, _ = self._columns
        expanded = below[index] > 0 and ids[index] not in self._closed
        beyond = index + shown[index] + 1
        last = beyond == len(ids) or depths[beyond] < depths[index]
        parent = index - up[index] if up[index] else -1
        return Row(ids[index], depths[index], parent, last, below[index], expanded, self.matches(index))


def visible(placed: Preorder, closed: frozenset[str], found: Sequence[bool] | None) -> Rows:
    """The lines of what is found with all that leads to it, but for what is below a closed one; None finds all."""
    if found is None and not closed:
        return Rows(_Columns(*placed, placed.below, None), closed)
    shown = None if found is None else _with_sources(placed.up, found)
    return Rows(_columns(placed, _chosen(placed, closed, shown), found), closed)


def _chosen(placed: Preorder, closed: frozenset[str], shown: Sequence[bool] | None) -> list[int]:
    """The places of the instances that are shown and have no closed one above them."""
    ids, below, index = placed.ids, placed.below, 0
    chosen: list[int] = []
    while index < len(ids):
        is_shown = shown is None or shown[index]
        if is_shown:
            chosen.append(index)
        index += 1 if is_shown and ids[index] not in closed else 1 + below[index]
    return chosen


def _with_sources(up: Sequence[int], matches: Sequence[bool]) -> list[bool]:
    """Which instances match, or have one that does below them."""
    shown = list(matches)
    for index in range(len(shown) - 1, -1, -1):
        if shown[index] and (distance := up[index]):
            shown[index - distance] = True
    return shown


def _columns(placed: Preorder, chosen: Sequence[int], matches: Sequence[bool] | None) -> _Columns:
    """What is said of the chosen instances, all of whose sources are chosen."""

    def of(values: Sequence[Any]) -> list[Any]:
        return [values[index] for index in chosen]

    row_of = dict(zip(chosen, range(len(chosen)), strict=True))
    up = [row - row_of[index - placed.up[index]] for row, index in enumerate(chosen)]
    shown = [0] * len(chosen)
    for row in range(len(chosen) - 1, -1, -1):
        if distance := up[row]:
            shown[row - distance] += shown[row] + 1
    return _Columns(
        of(placed.ids), of(placed.depths), up, of(placed.below), shown, None if matches is None else of(matches)
    )
