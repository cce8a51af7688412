"""The fork tree as its user has arranged it: how it is sorted, what is found, closed and marked, the cursor. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property

from forktui.model.change import NOTHING, Change
from forktui.model.filter import Filter, filter_of
from forktui.model.forest import Forest, View
from forktui.model.sorting import Sort
from forktui.model.tree_rows import Row, Rows
from forktui.model.world import World

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Tree:
    """Each method returns the tree that it makes of this one."""

    world: World = field(default_factory=World)
    forest: Forest = field(default_factory=Forest)
    cursor_id: str | None = None
    """The instance that actions act on where none is marked; where there is one, it is on a row."""
    chosen_id: str | None = None
    """Where the user has put the cursor, which a filter or a closed tree may have taken it from."""
    marked: frozenset[str] = _NONE
    range_begin: str | None = None
    """The instance that was marked last."""
    query: str = ""
    _closed: frozenset[str] = _NONE
    """What is closed while nothing is looked for."""

    @property
    def rows(self) -> Rows:
        """The visible rows, top to bottom."""
        return self.forest.rows

    @property
    def view(self) -> View:
        """What is wanted to be seen."""
        return self.forest.view

    @cached_property
    def cursor(self) -> int:
        """The row that the cursor is on; -1 where there is none."""
        return self.rows.place(self.cursor_id) if self.cursor_id is not None else -1

    @property
    def row(self) -> Row | None:
        """The row that the cursor is on."""
        return self.rows[self.cursor] if self.cursor >= 0 else None

    @cached_property
    def selection(self) -> tuple[str, ...]:
        """What actions act on: the marked instances in the tree's order, or the one under the cursor."""
        if not self.marked:
            return (self.cursor_id,) if self.cursor_id is not None else ()
        place = self.rows.position
        shown = sorted((i for i in self.marked if i in place), key=place.__getitem__)
        return (*shown, *sorted(i for i in self.marked if i not in place))

    @cached_property
    def hidden_marks(self) -> frozenset[str]:
        """The marked instances that are on no row: a filter or a closed tree hides them."""
        return self.marked.difference(self.rows.position) if self.marked else _NONE

    def after(self, world: World, change: Change, sorts: bool = True) -> "Tree":
        """The tree of a world after a change; the cursor stays on its instance, whose place another takes if it goes.

        Where it does not sort, rows stay in the order of the live values that they were in.
        """
        gone = {i for i in change.shown if i not in world.instances}
        if change.everything:
            gone = {i for i in self.marked | self._closed | self.view.collapsed if i not in world.instances}
        view = self.view
        if gone & view.collapsed:
            view = replace(view, collapsed=view.collapsed - gone)
        tree = replace(self, world=world, forest=self.forest.after(world, change, view, sorts))
        if gone:
            tree = replace(tree, marked=self.marked - gone, _closed=self._closed - gone)
        if tree.rows is self.rows or tree.cursor >= 0:
            return tree
        return tree._on(self._nearest(tree.rows))

    def moved(self, position: int) -> "Tree":
        """The cursor on a row, or on the first or last where there is none such."""
        return self._on(self.rows.ids[min(max(position, 0), len(self.rows) - 1)]) if self.rows else self

    def moved_to(self, instance_id: str) -> "Tree":
        """The cursor on an instance, and open what hides it; the same where it is not found."""
        if instance_id not in self.world.instances:
            return self
        tree = self
        if self.rows.place(instance_id) < 0:
            closed = self.view.collapsed.difference(self.sources(instance_id))
            tree = self._closing(closed)
        return tree._on(instance_id) if tree.rows.place(instance_id) >= 0 else self

    def with_sort(self, sort: Sort) -> "Tree":
        """Sorted so."""
        return self._seen(replace(self.view, sort=sort))

    def with_query(self, query: str) -> "Tree":
        """What a query finds, with the sources of it, all open; the cursor on a match."""
        return self._filtered(query, filter_of(query))

    def without_ended(self, hides: bool) -> "Tree":
        """With those that have ended only where they lead to another, or with all of them."""
        return self._seen(replace(self.view, hides_ended=hides), on_match=hides)

    def toggled(self, instance_id: str) -> "Tree":
        """With what is below an instance closed, or open again."""
        position = self.rows.place(instance_id)
        if position < 0 or not self.rows[position].descendants:
            return self
        return self._closing(self.view.collapsed ^ {instance_id})

    def toggled_all(self) -> "Tree":
        """With every root closed, or all open where something is closed."""
        roots = frozenset(row.id for row in self.rows if row.parent < 0 and row.descendants)
        return self._closing(_NONE if self.view.collapsed else roots)

    def with_marks(self, marked: Iterable[str], begin: str | None = None) -> "Tree":
        """With these marks, of which a range goes on from `begin`."""
        return replace(self, marked=frozenset(marked), range_begin=begin or self.range_begin)

    def on_match(self) -> "Tree":
        """The cursor on the first match, where it is on a row that only leads to one: actions act on what is there."""
        if self.cursor < 0 or self.rows.matches(self.cursor):
            return replace(self, chosen_id=self.cursor_id)
        return self._on(self.rows.ids[self.rows.match(0)])

    def marked_range(self) -> list[str]:
        """What is looked for from the row that was marked last to the cursor; only the cursor's where none was."""
        begin = self.rows.place(self.range_begin or "")
        begin = begin if begin >= 0 else self.cursor
        first, last = sorted((begin, self.cursor))
        return [self.rows.ids[index] for index in range(first, last + 1) if index >= 0 and self.rows.matches(index)]

    def sources(self, instance_id: str | None) -> list[str]:
        """The sources above an instance, nearest first; none of one that is not there."""
        found: dict[str, None] = {}
        instance = self.world.instances.get(instance_id or "")
        source = instance.source_id if instance is not None else None
        while source is not None and source in self.world.instances and source not in found:
            found[source] = None
            source = self.world.instances[source].source_id
        return list(found)

    def _filtered(self, query: str, wanted: Filter) -> "Tree":
        view, was_at = self.view, self.chosen_id if self.view.filter else self.cursor_id
        closed = self._closed if view.filter else view.collapsed
        collapsed = _NONE if wanted != view.filter else view.collapsed
        if not wanted:
            # What was looked for stays in sight.
            collapsed = closed.difference(self.sources(was_at))
        tree = replace(self, query=query, chosen_id=was_at, _closed=closed)
        return tree._seen(replace(view, filter=wanted, collapsed=collapsed), on_match=bool(wanted))

    def _closing(self, collapsed: frozenset[str]) -> "Tree":
        return self._seen(replace(self.view, collapsed=collapsed))

    def _seen(self, view: View, on_match: bool = False) -> "Tree":
        """Seen otherwise; the cursor is where its user has put it, or near that where it cannot be there."""
        tree = replace(self, forest=self.forest.after(self.world, NOTHING, view))
        for instance_id in (self.chosen_id, self.cursor_id):
            position = tree.rows.place(instance_id or "")
            if position >= 0 and (not on_match or tree.rows.matches(position)):
                return replace(tree, cursor_id=instance_id)
        return replace(tree, cursor_id=self._nearest(tree.rows))

    def _on(self, instance_id: str | None) -> "Tree":
        return replace(self, cursor_id=instance_id, chosen_id=instance_id)

    def _nearest(self, rows: Rows) -> str | None:
        """Of other rows the one that is nearest to the cursor's: what hides it, or else the next match."""
        known, position = rows.position, self.cursor
        parent = self.rows[position].parent if position >= 0 else -1
        while parent >= 0:
            row = self.rows[parent]
            if (at := known.get(row.id, -1)) >= 0:
                if not rows[at].expanded:
                    return row.id
                break
            parent = row.parent
        near = (*range(position, len(self.rows)), *range(position - 1, -1, -1)) if position >= 0 else ()
        for index in near:
            at = known.get(self.rows.ids[index], -1)
            if at >= 0 and rows.matches(at):
                return rows.ids[at]
        first = rows.match(0)
        return rows.ids[first] if first >= 0 else None
