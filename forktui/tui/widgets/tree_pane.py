"""The fork tree, what is looked for in it, and all that arranges it."""

from collections.abc import Iterable
from dataclasses import replace

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.widgets import Input

from forktui.actions.on_screen import REVERSED, SUMS
from forktui.model.sorting import Sort
from forktui.text.safe import safe_text
from forktui.tui.messages import Said
from forktui.tui.widgets.first_steps import FirstSteps
from forktui.tui.widgets.fork_tree import ForkTree
from forktui.tui.widgets.inked import Painting
from forktui.tui.widgets.text_field import TextField
from forktui.view.columns import BY_WORD, NAME
from forktui.view.styled_lines import Line
from forktui.view.tree_told import told


class Told(Painting):
    """What is filtered; it takes no room where nothing is."""

    def __init__(self) -> None:
        super().__init__(id="told")
        self._line: Line = []

    def say(self, line: Line) -> None:
        """Draw this."""
        self._line, self.display = line, bool(line)
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        return [self._line]


class TreePane(Vertical):
    """Arranges the tree: filter, order, marks, what is closed and what is hidden."""

    def __init__(self, tree: ForkTree, first_steps: FirstSteps) -> None:
        super().__init__(id="forest")
        self._tree = tree
        self._first_steps = first_steps
        self._filter = TextField("", "web state:running", id="filter")
        self._told = Told()

    def compose(self) -> ComposeResult:
        yield self._tree
        yield self._first_steps
        yield self._filter
        yield self._told

    def on_mount(self) -> None:
        self._filter.display = False
        self._told.say([])

    @property
    def is_filtered(self) -> bool:
        """Whether something is looked for, or is about to be."""
        return self._filter.display or bool(self._tree.shown.query)

    def filter(self, words: str) -> None:
        """Look for these words, or have them typed."""
        if words:
            self._filter.value = words
            self._leave()
        else:
            self._filter.display = True
            self._filter.focus()
            self._tell()

    def end_filter(self) -> None:
        """Look for nothing any more."""
        self._filter.value = ""
        self._leave()

    @on(Input.Changed, "#filter")
    def _changed(self, event: Input.Changed) -> None:
        self._tree.rearrange(self._tree.shown.with_query(safe_text(event.value)))

    @on(Input.Submitted, "#filter")
    def _submitted(self) -> None:
        self._tree.rearrange(self._tree.shown.on_match())
        self._leave()

    @on(ForkTree.Arranged)
    def _tell(self) -> None:
        self._told.say(told(self._tree.shown, self._filter.display))

    def _leave(self) -> None:
        self._filter.display = False
        self._tree.focus()
        self._tell()

    def toggle_mark(self) -> None:
        """Mark or unmark the instance under the cursor, and go to the next."""
        tree = self._tree.shown
        if tree.cursor_id is not None:
            marked = tree.with_marks(tree.marked ^ {tree.cursor_id}, tree.cursor_id)
            self._tree.rearrange(marked.moved(tree.cursor + 1))

    def mark_found(self) -> None:
        """Mark all that is looked for."""
        self._mark(self._tree.shown.forest.matching)

    def mark_tree(self) -> None:
        """Mark what is looked for of the instance under the cursor and all below it."""
        tree = self._tree.shown
        if tree.cursor_id is not None:
            self._mark(tree.forest.tree(tree.cursor_id))

    def mark_range(self) -> None:
        """Mark what is looked for from the row that was marked last to the cursor."""
        self._mark(self._tree.shown.marked_range())

    def clear_marks(self) -> None:
        """Unmark all."""
        self._tree.set_marks(frozenset())

    def toggle(self) -> None:
        """Open or close the forks below the cursor."""
        tree = self._tree.shown
        if tree.cursor_id is not None:
            self._tree.rearrange(tree.toggled(tree.cursor_id))

    def toggle_all(self) -> None:
        """Close every root, or open everything where something is closed."""
        self._tree.rearrange(self._tree.shown.toggled_all())

    def hide_ended(self) -> None:
        """Hide those that have ended, or show them again."""
        tree = self._tree.shown
        self._tree.rearrange(tree.without_ended(not tree.view.hides_ended))

    def sort(self, words: str) -> None:
        """Sort by a column, turned round or by sums where the words say so too."""
        said = words.split()
        column = next((BY_WORD[word] for word in said if word in BY_WORD), None)
        measure = self._tree.shown.view.sort.measure if column is None else column.measure
        self._tree.set_sort(Sort(measure, REVERSED in said, SUMS in said))

    def sort_beside(self, step: int) -> None:
        """Sort by the column to the right or to the left of the one that is sorted by."""
        columns = (NAME, *self._tree.shape.columns)
        sort = self._tree.shown.view.sort
        measures = [column.measure for column in columns]
        at = measures.index(sort.measure) if sort.measure in measures else -1 if step > 0 else 0
        self._tree.set_sort(Sort(measures[(at + step) % len(measures)], of_trees=sort.of_trees))

    def turn_round(self) -> None:
        """Sort the other way round."""
        sort = self._tree.shown.view.sort
        self._tree.set_sort(replace(sort, reversed=not sort.reversed))

    def sum_trees(self) -> None:
        """Sort by the sums over whole trees, or by each instance alone."""
        sort = self._tree.shown.view.sort
        if not sort.measure.sums:
            summed = ", ".join(column.word for column in BY_WORD.values() if column.measure.sums)
            refusal = Said(f"what is sorted by has no sum: sort by {summed} (> or a click on its title)", "warning")
            # Else it would go no further than to the screen that has passed the key on.
            self.post_message(refusal.set_sender(self))
            return
        self._tree.set_sort(replace(sort, of_trees=not sort.of_trees))

    def _mark(self, ids: Iterable[str]) -> None:
        tree = self._tree.shown
        self._tree.rearrange(tree.with_marks(tree.marked.union(ids), tree.cursor_id))
