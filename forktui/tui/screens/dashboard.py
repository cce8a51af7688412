"""The dashboard: the fork tree, the selected instance beside or below it, and what happens at the bottom."""

from collections.abc import Callable
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.screen import Screen
from textual.widgets import Input

from forktui.client.feed import Connection
from forktui.model.actions import ACTIONS, BY_ID, Action
from forktui.model.world import World
from forktui.tui.messages import (
    ConsoleWanted,
    EstimateWanted,
    PageMapRead,
    PageMapWanted,
    PlanWanted,
    RetryWanted,
    Said,
    Wanted,
)
from forktui.tui.screens.dialogs import Confirm, FanOutPrompt
from forktui.tui.screens.events import Events
from forktui.tui.screens.reading import READING_MARGIN, READING_WIDTH, Reading, help_lines
from forktui.tui.widgets.activity_log import ActivityLog
from forktui.tui.widgets.banner import Banner
from forktui.tui.widgets.details import Facts, FaultRate
from forktui.tui.widgets.fork_tree import ForkTree
from forktui.tui.widgets.heat_map import HeatMap, has_page_map
from forktui.tui.widgets.key_bar import KeyBar
from forktui.tui.widgets.status_line import StatusLine
from forktui.view.questions import consequences, fan_out_facts, needs_question, question, tree_consequences
from supervisor.models import DeletionPlan, Instance

PAGE_MAP_SECONDS = 0.5
"""The least time between two readings of a page map."""


class Dashboard(Screen[None]):
    """What is shown of the world, and which keys do what; it asks the application for everything else.

    `now` is the supervisor's clock, which its statistics are stamped with; `clock` is monotonic. Both are in seconds.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(",".join(action.keys), f"do('{action.id}')", action.label, show=False) for action in ACTIONS
    ]

    def __init__(self, socket: str, title: str, now: Callable[[], float], clock: Callable[[], float]) -> None:
        super().__init__()
        self.world = World()
        self.connection = Connection()
        self.fork_tree = ForkTree(id="tree")
        self._now = now
        self._clock = clock
        self._status = StatusLine(socket, title)
        self._banner = Banner()
        self._filter = Input(placeholder="words in name, id, state, uffd, firecracker, locked", id="filter")
        self._facts = Facts()
        self._fault_rate = FaultRate()
        self._heat_map = HeatMap()
        self._activity = ActivityLog(id="activity")
        self._keys = KeyBar()
        self._page_map_read: tuple[object, ...] = ()
        self._page_map_read_at = float("-inf")

    def compose(self) -> ComposeResult:
        yield self._status
        yield self._banner
        with Container(id="body"):
            with Vertical(id="forest"):
                yield self.fork_tree
                yield self._filter
            with Container(id="inspector"):
                yield self._facts
                with Vertical(id="memory"):
                    yield self._fault_rate
                    yield self._heat_map
        yield self._activity
        yield self._keys

    def on_mount(self) -> None:
        self._filter.display = False
        self.fork_tree.focus()

    @property
    def selected(self) -> Instance | None:
        """The instance under the cursor."""
        return self.world.instances.get(self.fork_tree.cursor_id or "")

    def show(self, world: World, connection: Connection, changed: frozenset[str] | None) -> None:
        """Draw `world`; `changed` are the instances whose counters changed, None where anything may have."""
        self.world, self.connection = world, connection
        with self.app.batch_update():
            self._status.show(world, connection)
            self.fork_tree.show(world, changed)
            self._activity.show(world)
            self._banner.show(connection, self._clock())
            self._show_selected()

    def tick(self) -> None:
        """Draw what depends on the time alone."""
        self._banner.show(self.connection, self._clock())
        self._fault_rate.show(self.world, self.selected, self._now())
        self._read_page_map()

    def show_page_map(self, message: PageMapRead) -> None:
        """Draw a page map that was asked for."""
        if message.fold is not None:
            self._heat_map.show(message.fold)
        else:
            self._heat_map.refuse(message.instance_id, message.refusal)
            # To be asked for again, whether or not anything changes.
            self._page_map_read = self._page_map_read[:2]

    def ask_to_delete(self, plan: DeletionPlan) -> None:
        """Ask whether a source is to go with all that is below it; a question that is open already is left alone."""

        def do(yes: bool | None) -> None:
            if yes:
                self.post_message(Wanted("delete_tree", [root.id]))

        root = plan.deletions[-1]
        if self.is_current:
            below = len(plan.deletions) - 1
            asked = f"Delete {root.name} and the {'fork' if below == 1 else f'{below} forks'} below it?"
            self.app.push_screen(Confirm(asked, tree_consequences(plan), "Delete all"), do)

    def refusal(self, action: Action) -> str | None:
        """Why an action cannot be done now; None where it can."""
        writable = self.world.supervisor is not None and self.world.supervisor.writable
        return action.refused(self.world, self._targets(action), self.connection.live, writable)

    def action_do(self, action_id: str) -> None:
        """Do an action, or say why not."""
        action = BY_ID[action_id]
        refusal = self.refusal(action)
        if refusal is not None:
            self.post_message(Said(refusal, "warning"))
        elif action.guard is not None:
            self._ask_then_do(action_id, [self.world.instances[i] for i in self._targets(action)])
        else:
            getattr(self, f"do_{action_id}")()

    @on(KeyBar.Clicked)
    def _key_clicked(self, event: KeyBar.Clicked) -> None:
        self.action_do(event.action.id)

    @on(ForkTree.Moved)
    def _tree_moved(self) -> None:
        self._show_selected()

    @on(Input.Changed, "#filter")
    def _filter_changed(self, event: Input.Changed) -> None:
        self.fork_tree.set_query(event.value)

    @on(Input.Submitted, "#filter")
    def _filter_submitted(self) -> None:
        self._filter.display = bool(self._filter.value)
        self.fork_tree.move_to_match()
        self.fork_tree.focus()

    def key_escape(self) -> None:
        """End the filter."""
        if self._filter.display:
            self._filter.value = ""
            self._filter.display = False
            self.fork_tree.focus()

    def on_resize(self) -> None:
        self.call_after_refresh(self._read_page_map)

    def _targets(self, action: Action) -> tuple[str, ...]:
        return self.fork_tree.selection if not action.one else tuple(filter(None, [self.fork_tree.cursor_id]))

    def _show_selected(self) -> None:
        instance = self.selected
        self._facts.show(self.world, instance)
        self._fault_rate.show(self.world, instance, self._now())
        self._heat_map.select(instance)
        self._keys.show([(action, self.refusal(action) is None) for action in ACTIONS if action.footer], self._marks())
        self._read_page_map()

    def _marks(self) -> int:
        return len(self.fork_tree.marked)

    def _read_page_map(self) -> None:
        """Ask for the selected instance's page map where its counters have changed, twice a second at most."""
        instance, cells = self.selected, self._heat_map.cells
        if instance is None or not has_page_map(instance) or not cells or not self.connection.live:
            self._page_map_read = ()
            return
        counters = self.world.statistics_of(instance.id)
        wanted = (instance.id, cells, counters.present_pages, counters.faults, counters.removed_pages)
        moved = wanted[:2] != self._page_map_read[:2]
        if wanted == self._page_map_read or (not moved and self._clock() < self._page_map_read_at + PAGE_MAP_SECONDS):
            return
        self._page_map_read, self._page_map_read_at = wanted, self._clock()
        self.post_message(PageMapWanted(instance.id, cells))

    def _ask_then_do(self, action_id: str, targets: list[Instance]) -> None:
        ids = [instance.id for instance in targets]

        def do(count: int | None) -> None:
            if count:
                self.fork_tree.set_marks(self.fork_tree.marked.difference(ids))
                self.post_message(Wanted(action_id, ids, count))

        if action_id == "fan_out":
            self.app.push_screen(FanOutPrompt(targets[0].name, fan_out_facts(self.world, targets[0])), do)
            self.post_message(EstimateWanted(ids[0]))
        elif action_id == "delete" and len(targets) == 1 and targets[0].mem_locked:
            self.post_message(PlanWanted(ids[0]))
        elif needs_question(action_id, targets):
            says = consequences(action_id, self.world, targets)
            yes = "Copy" if action_id == "fork" else BY_ID[action_id].label
            self.app.push_screen(Confirm(question(action_id, targets), says, yes), do)
        else:
            do(1)

    def do_console(self) -> None:
        if self.selected is not None:
            self.post_message(ConsoleWanted(self.selected.id))

    def do_copy_id(self) -> None:
        if self.selected is not None:
            self.app.copy_to_clipboard(self.selected.id)
            self.post_message(Said(f"{self.selected.name}: {self.selected.id} sent to the clipboard"))

    def do_mark(self) -> None:
        self.fork_tree.toggle_mark()

    def do_unmark(self) -> None:
        self.fork_tree.set_marks(frozenset())

    def do_toggle(self) -> None:
        self.fork_tree.toggle()

    def do_toggle_all(self) -> None:
        self.fork_tree.toggle_all()

    def do_filter_rows(self) -> None:
        self._filter.display = True
        self._filter.focus()

    def do_order(self) -> None:
        self.fork_tree.next_order()

    def do_details(self) -> None:
        shown = self.query_one("#inspector").display
        self.set_class(not shown, "details")
        self.set_class(shown, "no-details")
        self.call_after_refresh(self._read_page_map)

    def do_events(self) -> None:
        self._activity.display = not self._activity.display

    @on(ActivityLog.Opened)
    def do_events_full(self) -> None:
        self.app.push_screen(Events(self.world, self.selected))

    def do_hold(self) -> None:
        self._activity.hold(not self._activity.held)

    def do_reconnect(self) -> None:
        self.post_message(RetryWanted())

    def do_help(self) -> None:
        width = min(self.size.width - READING_MARGIN, READING_WIDTH)
        moves = [
            (binding.key_display or binding.key, binding.description)
            for binding in ForkTree.BINDINGS
            if isinstance(binding, Binding)
        ]
        self.app.push_screen(Reading("Keys", help_lines(moves, width)))

    def do_quit(self) -> None:
        self.app.exit()
