"""The fork tree: one line per instance, drawn line by line, so that ten thousand cost what fifty do."""

import textwrap
from collections.abc import Callable, Mapping, Set
from typing import ClassVar, Final

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from forktui.model.change import NOTHING, Change
from forktui.model.sorting import Sort
from forktui.model.tree import Tree
from forktui.model.tree_rows import Rows
from forktui.model.world import World
from forktui.tui.widgets.inked import InkedScroll
from forktui.view.columns import Column
from forktui.view.rows import wrapped
from forktui.view.styled_lines import Line
from forktui.view.tree_lines import Layout, arrow_cells, column_at, header, layout, row_line
from forktui.view.tree_told import nothing_shown

MARK_WIDTH: Final = 2
SORT_SECONDS: Final = 2.0
"""How often rows are sorted by a live value: at each change nobody could read them, and it costs all of them."""
_TOP: Final = 1
"""The line of the titles."""


class ForkTree(InkedScroll):
    """The fork forest with a cursor that stays on its instance, and marks."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Next line", key_display="Down j"),
        Binding("up,k", "move(-1)", "Previous line", key_display="Up k"),
        Binding("shift+down,J", "extend(1)", "Mark, and go to the next line", key_display="Shift+Dn J"),
        Binding("shift+up,K", "extend(-1)", "Mark, and go to the previous line", key_display="Shift+Up K"),
        Binding("left,h", "close", "Close what is below, or go to the source", key_display="Left h"),
        Binding("right,l", "open", "Open what is below, or go to the first fork", key_display="Right l"),
        Binding("pagedown,ctrl+f", "page(1)", "A page down", key_display="PgDn ^f"),
        Binding("pageup,ctrl+b", "page(-1)", "A page up", key_display="PgUp ^b"),
        Binding("home,g", "edge(0)", "First line", key_display="Home g"),
        Binding("end,G", "edge(-1)", "Last line", key_display="End G"),
    ]

    class Arranged(Message):
        """The rows are others, or seen otherwise."""

    class ColumnsWanted(Message):
        """The columns are to be chosen."""

    class ColumnsChosen(Message):
        """Its user has said something else of the columns."""

        def __init__(self, choices: Mapping[str, str]) -> None:
            super().__init__()
            self.choices = choices

    def __init__(self, moved: Callable[[], object], *, id: str | None = None) -> None:  # noqa: A002
        """`moved` is called where the cursor is on another instance, or on none, or the marks have changed."""
        super().__init__(id=id)
        self.shown = Tree()
        self._moved = moved
        self.columns: Mapping[str, str] = {}
        """What its user has said of columns, by their words: those of `view.tree_lines.Choice`."""
        self._sorted_at = float("-inf")
        self._shape = Layout(0, ())
        self._drawn: dict[int, tuple[Line, bool]] = {}
        """What each line of the screen was when it was drawn last, and whether under the cursor."""

    @property
    def world(self) -> World:
        """What is drawn."""
        return self.shown.world

    @property
    def rows(self) -> Rows:
        """The visible rows, top to bottom."""
        return self.shown.rows

    @property
    def cursor(self) -> int:
        """The row that the cursor is on; -1 where there is none."""
        return self.shown.cursor

    @property
    def cursor_id(self) -> str | None:
        """The instance that the cursor is on."""
        return self.shown.cursor_id

    @property
    def marked(self) -> frozenset[str]:
        """The marked instances."""
        return self.shown.marked

    @property
    def selection(self) -> tuple[str, ...]:
        """What actions act on: the marked instances in the tree's order, or the one under the cursor."""
        return self.shown.selection

    @property
    def shape(self) -> Layout:
        """How the columns share the width."""
        return layout(self.scrollable_content_region.width - MARK_WIDTH, self.columns, self.world, self.shown.view.sort)

    def show(self, world: World, change: Change) -> None:
        """Draw what `change` has made of the world; what is not on the screen costs nothing."""
        self._become(self.shown.after(world, change, sorts=False), change.ids)

    def tick(self, now: float) -> None:
        """Draw what depends on time alone, and sort by live values where that is due; `now` is in monotonic seconds."""
        tree = self.shown
        if tree.view.sort.measure.live and now >= self._sorted_at + SORT_SECONDS:
            self._sorted_at, tree = now, tree.after(tree.world, NOTHING)
        self._become(tree)

    def rearrange(self, tree: Tree) -> None:
        """Draw the tree as its user wants to see it; the cursor is on the screen."""
        self._become(tree, tree.marked ^ self.shown.marked)
        self._follow_cursor()

    def move_to(self, instance_id: str | None) -> None:
        """Put the cursor on an instance, opening what hides it; no effect where there is none such."""
        if instance_id is not None:
            self.rearrange(self.shown.moved_to(instance_id))

    def set_marks(self, marked: frozenset[str]) -> None:
        """Replace the marks."""
        self.rearrange(self.shown.with_marks(marked))

    def set_sort(self, sort: Sort) -> None:
        """Sort so."""
        self.rearrange(self.shown.with_sort(sort))

    def sort_by(self, column: Column) -> None:
        """Sort by a column, or the other way round where that is so already."""
        sort = self.shown.view.sort
        again = sort.measure is column.measure
        self.set_sort(Sort(column.measure, again and not sort.reversed, sort.of_trees))

    def set_columns(self, choices: Mapping[str, str]) -> None:
        """Show the columns of which its user has said this."""
        self.columns = choices
        self._become(self.shown)

    def keep_columns(self) -> None:
        """Have what was said of the columns kept."""
        self.post_message(self.ColumnsChosen(self.columns))

    def action_move(self, lines: int) -> None:
        self.rearrange(self.shown.moved(self.cursor + lines))

    def action_extend(self, lines: int) -> None:
        if self.cursor_id is not None:
            marked = self.shown.with_marks(self.marked | {self.cursor_id}, self.cursor_id)
            self.rearrange(marked.moved(self.cursor + lines))

    def action_page(self, pages: int) -> None:
        self.action_move(pages * max(self.size.height - _TOP - 1, 1))

    def action_edge(self, row: int) -> None:
        self.rearrange(self.shown.moved(row if row >= 0 else len(self.rows) - 1))

    def action_close(self) -> None:
        row = self.shown.row
        if row is not None and row.expanded:
            self.rearrange(self.shown.toggled(row.id))
        elif row is not None and row.parent >= 0:
            self.rearrange(self.shown.moved(row.parent))

    def action_open(self) -> None:
        row = self.shown.row
        if row is not None and row.descendants:
            self.rearrange(self.shown.moved(self.cursor + 1) if row.expanded else self.shown.toggled(row.id))

    def on_click(self, event: events.Click) -> None:
        cell = event.x - MARK_WIDTH
        if event.y < _TOP:
            column = column_at(self.shape, cell)
            if cell < 0:
                self.post_message(self.ColumnsWanted())
            elif column is not None:
                self.sort_by(column)
            return
        position = event.y - _TOP + round(self.scroll_y)
        if position >= len(self.rows):
            return
        if cell in arrow_cells(self.rows, position, self.shape, self.glyphs):
            self.rearrange(self.shown.toggled(self.rows.ids[position]))
            return
        same = position == self.cursor
        self.rearrange(self.shown.moved(position))
        if event.chain > 1 and same:
            self.rearrange(self.shown.toggled(self.rows.ids[position]))

    def on_resize(self) -> None:
        self._drawn.clear()
        self.set_line_count(len(self.rows) + _TOP)
        self._follow_cursor()

    def render_line(self, y: int) -> Strip:
        self._shape = self.shape
        line, under_cursor = self._drawn[y] = self._line(y)
        cursor = self.inks["cursor" if self.screen.focused is self else "cursor left"]
        under = self.inks["title"] if y < _TOP else cursor if under_cursor else None
        return self.strip(line, self.scrollable_content_region.width, under)

    def _become(self, tree: Tree, ids: Set[str] | None = None) -> None:
        """Be another tree; where its rows are the same, only those of `ids` may look different, or any where None."""
        before, self.shown = self.shown, tree
        shape, self._shape = self._shape, self.shape
        if tree.rows is before.rows and tree.view == before.view:
            self._refresh_lines(ids if shape == self._shape else None)
        else:
            self.set_line_count(len(tree.rows) + _TOP)
            self._keep_place(before)
            self._show_new_forks(before)
            self._refresh_lines(None)
        if tree.forest is not before.forest:
            self._tell(self.Arranged())
        if tree.cursor_id != before.cursor_id or tree.marked != before.marked:
            self._refresh_row(before.cursor)
            self._refresh_row(tree.cursor)
            self._moved()

    def _tell(self, message: Message) -> None:
        # Else what its parent has caused, such as by a filter, would go no further than to the parent.
        message.set_sender(self)
        self.post_message(message)

    def _keep_place(self, before: Tree) -> None:
        """Have the cursor on the same line of the screen, or what is at the top where it is not on the screen."""
        top, height = round(self.scroll_y), self.size.height - _TOP
        if 0 <= before.cursor - top < height:
            line = before.cursor - top
            if self.cursor >= 0 and (top > 0 or self.cursor >= height):
                self.scroll_to(y=self.cursor - line, animate=False)
        elif top < len(before.rows) and (place := self.rows.place(before.rows.ids[top])) >= 0:
            self.scroll_to(y=place, animate=False)

    def _show_new_forks(self, before: Tree) -> None:
        """Have forks that came below the cursor's row on the screen, as far as half of it."""
        row, known, height = self.shown.row, before.row, self.size.height - _TOP
        if row is None or known is None or row.id != known.id or row.descendants <= known.descendants:
            return
        line, wanted = self.cursor - round(self.scroll_y), min(row.descendants, height // 2)
        if row.expanded and 0 <= line < height and height - 1 - line < wanted:
            self.scroll_to(y=self.cursor - (height - 1 - wanted), animate=False)

    def _refresh_lines(self, ids: Set[str] | None) -> None:
        """Have those lines on the screen drawn that are different; only these rows' may be, or any where None."""
        top = round(self.scroll_y) - _TOP
        for y in range(_TOP if ids is not None else 0, self.size.height):
            position = y + top
            if ids is not None and (position >= len(self.rows) or self.rows.ids[position] not in ids):
                continue
            before, under_cursor = self._drawn.get(y, ([], False))
            line, is_under_cursor = self._line(y)
            if under_cursor != is_under_cursor or y not in self._drawn:
                self.refresh(Region(0, y, self.size.width, 1))
                continue
            self.refresh_difference(y, before, line)

    def _line(self, y: int) -> tuple[Line, bool]:
        """A line of the screen, and whether the cursor is on it."""
        shape = self._shape
        if y < _TOP:
            more = self.glyphs.deeper if shape.missing else " "
            return [(f"{more} ", "guide"), *header(shape, self.shown.view.sort, self.glyphs)], False
        position = y - _TOP + round(self.scroll_y)
        if position >= len(self.rows):
            return self._empty_line(position), False
        instance_id = self.rows.ids[position]
        mark = f"{self.glyphs.mark} " if instance_id in self.marked else "  "
        line = row_line(self.world, self.shown.forest, position, shape, self.glyphs)
        return [(mark, "mark"), *line], instance_id == self.cursor_id

    def _empty_line(self, position: int) -> Line:
        """A line below the last row, which says why there is none."""
        if self.rows or not (words := nothing_shown(self.shown)):
            return []
        width = max(self.scrollable_content_region.width - 2 * MARK_WIDTH, 1)
        lines = [row for line in textwrap.wrap(words, width) for row in wrapped([(line, "muted")], width)]
        return [("  ", "plain"), *lines[position - 1]] if 0 < position <= len(lines) else []

    def _follow_cursor(self) -> None:
        height = self.size.height - _TOP
        if self.cursor < 0 or height <= 0:
            return
        if self.cursor < self.scroll_y:
            self.scroll_to(y=self.cursor, animate=False)
        elif self.cursor >= self.scroll_y + height:
            self.scroll_to(y=self.cursor - height + 1, animate=False)

    def _refresh_row(self, position: int) -> None:
        y = position - round(self.scroll_y) + _TOP
        if _TOP <= y < self.size.height:
            self.refresh(Region(0, y, self.size.width, 1))
