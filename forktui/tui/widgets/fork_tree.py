"""The fork tree: one line per instance, drawn line by line, so that ten thousand cost what fifty do."""

from collections.abc import Set
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region
from textual.message import Message
from textual.strip import Strip

from forktui.model.change import NOTHING, Change
from forktui.model.forest import Forest, Order, Rows, View
from forktui.model.world import World
from forktui.tui.widgets.inked import InkedScroll
from forktui.view.columns import header, layout, row_line
from forktui.view.styled_lines import Line

MARK_WIDTH = 2
_TOP = 1
"""The line of the titles."""


class ForkTree(InkedScroll):
    """The fork forest with a cursor that stays on its instance, and marks."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("down,j", "move(1)", "Next line", key_display="Down j"),
        Binding("up,k", "move(-1)", "Previous line", key_display="Up k"),
        Binding("left,h", "close", "Close what is below, or go to the source", key_display="Left h"),
        Binding("right,l", "open", "Open what is below, or go to the first fork", key_display="Right l"),
        Binding("pagedown,ctrl+f", "page(1)", "A page down", key_display="PgDn ^f"),
        Binding("pageup,ctrl+b", "page(-1)", "A page up", key_display="PgUp ^b"),
        Binding("home,g", "edge(0)", "First line", key_display="Home g"),
        Binding("end,G", "edge(-1)", "Last line", key_display="End G"),
    ]

    class Moved(Message):
        """The cursor is on another instance, or on none, or the marks have changed."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self.world = World()
        self._forest = Forest()
        self.cursor_id: str | None = None
        self.marked: frozenset[str] = frozenset()
        self.collapsed: frozenset[str] = frozenset()
        self.query_text = ""
        self.order = Order.CREATED
        self._drawn: dict[int, tuple[Line, bool]] = {}
        """What each line of the screen was when it was drawn last, and whether under the cursor."""

    @property
    def rows(self) -> Rows:
        """The visible rows, top to bottom."""
        return self._forest.rows

    @property
    def cursor(self) -> int:
        """The row that the cursor is on; -1 where there is none."""
        return self.rows.position.get(self.cursor_id, -1) if self.cursor_id is not None else -1

    @property
    def selection(self) -> tuple[str, ...]:
        """What actions act on: the marked instances in the tree's order, or the one under the cursor."""
        if self.marked:
            shown = [row.id for row in self.rows if row.id in self.marked]
            hidden = sorted(i for i in self.marked if i in self.world.instances and i not in self.rows.position)
            return tuple(shown + hidden)
        return (self.cursor_id,) if self.cursor_id is not None else ()

    def show(self, world: World, change: Change) -> None:
        """Draw what `change` has made of the world; what is not on the screen costs nothing."""
        self.world = world
        self._lay_out(change)

    def rebuild(self) -> None:
        """Lay the rows out as they are to be seen; the cursor follows its instance, or takes the place that it had."""
        self._lay_out(NOTHING)
        self.refresh()

    def _lay_out(self, change: Change) -> None:
        instances, position, was_at, was_on = self.world.instances, self.rows.position, self.cursor, self.cursor_id
        gone = frozenset(i for i in self.marked if i not in instances)
        self.marked -= gone
        self.collapsed = frozenset(i for i in self.collapsed if i in instances)
        self._forest = self._forest.after(self.world, change, View(self.order, self.query_text, self.collapsed))
        if self.rows.position is position:
            self._refresh_lines(change.ids)
            return
        self.set_line_count(len(self.rows) + _TOP)
        if self.cursor < 0:
            self.cursor_id = self._nearest_match(was_at)
        if self.cursor != was_at:
            self._follow_cursor()
        self._refresh_lines(None)
        if self.cursor_id != was_on or gone:
            self.post_message(self.Moved())

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

    def move_to(self, instance_id: str | None) -> None:
        """Put the cursor on an instance, opening what hides it; no effect where there is none such."""
        if instance_id is None or instance_id not in self.world.instances:
            return
        if instance_id not in self.rows.position:
            self.collapsed = self.collapsed.difference(self._sources(instance_id))
            self.rebuild()
        if instance_id in self.rows.position:
            self._put_cursor(self.rows.position[instance_id])

    def toggle(self) -> None:
        """Open or close the forks below the cursor."""
        if self.cursor >= 0 and self.rows[self.cursor].descendants:
            self._set_collapsed(self.collapsed ^ {self.rows[self.cursor].id})

    def toggle_all(self) -> None:
        """Close every root, or open everything where something is closed."""
        roots = frozenset(row.id for row in self.rows if row.parent < 0 and row.descendants)
        self._set_collapsed(frozenset() if self.collapsed else roots)

    def toggle_mark(self) -> None:
        """Mark or unmark the instance under the cursor, and go to the next."""
        if self.cursor_id is not None:
            self.set_marks(self.marked ^ {self.cursor_id})
            self.action_move(1)

    def set_marks(self, marked: frozenset[str]) -> None:
        """Replace the marks."""
        self.marked = marked
        self.refresh()
        self.post_message(self.Moved())

    def set_query(self, query: str) -> None:
        """Show what matches `query`, and the sources of it; the cursor is on a match."""
        self.query_text = query
        self.rebuild()
        self.move_to_match()

    def move_to_match(self) -> None:
        """Take the cursor from a row that only leads to a match to the first match: actions act on what is under it."""
        if self.cursor >= 0 and not self.rows[self.cursor].matches:
            self._put_cursor(next(position for position, row in enumerate(self.rows) if row.matches))

    def next_order(self) -> Order:
        """Sort by the next order and return it."""
        orders = list(Order)
        self.set_order(orders[(orders.index(self.order) + 1) % len(orders)])
        return self.order

    def set_order(self, order: Order) -> None:
        """Sort by an order."""
        self.order = order
        self.rebuild()

    def action_move(self, lines: int) -> None:
        self._put_cursor(self.cursor + lines)

    def action_page(self, pages: int) -> None:
        self._put_cursor(self.cursor + pages * max(self.size.height - _TOP - 1, 1))

    def action_edge(self, row: int) -> None:
        self._put_cursor(row if row >= 0 else len(self.rows) - 1)

    def action_close(self) -> None:
        if self.cursor < 0:
            return
        row = self.rows[self.cursor]
        if row.expanded and not self.query_text:
            self._set_collapsed(self.collapsed | {row.id})
        elif row.parent >= 0:
            self._put_cursor(row.parent)

    def action_open(self) -> None:
        if self.cursor < 0 or not self.rows[self.cursor].descendants:
            return
        row = self.rows[self.cursor]
        if row.expanded:
            self._put_cursor(self.cursor + 1)
        else:
            self._set_collapsed(self.collapsed - {row.id})

    def on_click(self, event: events.Click) -> None:
        position = event.y - _TOP + round(self.scroll_y)
        if event.y < _TOP or position >= len(self.rows):
            return
        same = position == self.cursor
        self._put_cursor(position)
        if event.chain > 1 and same:
            self.toggle()

    def on_resize(self) -> None:
        self._drawn.clear()
        self.set_line_count(len(self.rows) + _TOP)
        self._follow_cursor()

    def render_line(self, y: int) -> Strip:
        line, under_cursor = self._drawn[y] = self._line(y)
        cursor = self.inks["cursor" if self.screen.focused is self else "cursor left"]
        under = self.inks["title"] if y < _TOP else cursor if under_cursor else None
        return self.strip(line, self.scrollable_content_region.width, under)

    def _line(self, y: int) -> tuple[Line, bool]:
        """A line of the screen, and whether the cursor is on it."""
        shape = layout(self.scrollable_content_region.width - MARK_WIDTH)
        if y < _TOP:
            return [("  ", "title"), *header(shape, self.order.value)], False
        position = y - _TOP + round(self.scroll_y)
        if position >= len(self.rows):
            return [], False
        instance_id = self.rows.ids[position]
        mark = f"{self.glyphs.mark} " if instance_id in self.marked else "  "
        line = row_line(self.world, self.rows, position, shape, self.glyphs)
        return [(mark, "mark"), *line], instance_id == self.cursor_id

    def _nearest_match(self, position: int) -> str | None:
        """The instance of the first match at or below a row, else of the last one above it; None without matches."""
        matches = [row.id for row in self.rows if row.matches]
        below = (row.id for row in self.rows[max(position, 0) :] if row.matches)
        return next(below, matches[-1] if matches else None)

    def _put_cursor(self, position: int) -> None:
        if not self.rows:
            return
        position = min(max(position, 0), len(self.rows) - 1)
        if position == self.cursor:
            return
        self._refresh_row(self.cursor)
        self.cursor_id = self.rows[position].id
        self._refresh_row(position)
        self._follow_cursor()
        self.post_message(self.Moved())

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

    def _set_collapsed(self, collapsed: frozenset[str]) -> None:
        self.collapsed = collapsed
        if self.cursor_id is not None:
            # A cursor inside a tree that closes goes to the row that hides it.
            self.cursor_id = next(
                (i for i in reversed(self._sources(self.cursor_id)) if i in collapsed), self.cursor_id
            )
        self.rebuild()
        self.post_message(self.Moved())

    def _sources(self, instance_id: str) -> list[str]:
        """The sources above an instance, nearest first."""
        found: dict[str, None] = {}
        source = self.world.instances[instance_id].source_id
        while source is not None and source in self.world.instances and source not in found:
            found[source] = None
            source = self.world.instances[source].source_id
        return list(found)
