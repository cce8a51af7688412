"""The dashboard: the fork tree, the selected instance beside or below it, and what happens at the bottom."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Container, Vertical
from textual.screen import Screen

from forktui.actions.action import Action, OnScreen, Verb
from forktui.actions.command_line import Command, NotUnderstoodError, understood
from forktui.actions.form import Values
from forktui.actions.guards import forbidden
from forktui.actions.leaving import leaving
from forktui.actions.registry import ACTIONS, BY_WORD
from forktui.actions.states import CANCEL
from forktui.client.feed import Connection
from forktui.model.change import Change
from forktui.model.family import Family, family_after, family_beside, family_of
from forktui.model.world import World
from forktui.text.safe import safe_text
from forktui.tui.attachment import Attachment
from forktui.tui.messages import ConsoleWanted, PageMapRead, PageMapWanted, RetryWanted, Said, Wanted
from forktui.tui.screens.alarms import AlarmsScreen
from forktui.tui.screens.bursts import FanOuts
from forktui.tui.screens.columns import ColumnPicker
from forktui.tui.screens.dialogs import Confirm, Dialog
from forktui.tui.screens.events import Events
from forktui.tui.screens.forms import FormDialog
from forktui.tui.screens.help import Help
from forktui.tui.screens.inspection import Inspection
from forktui.tui.screens.reading import READING_MARGIN, READING_WIDTH
from forktui.tui.sparing import Sparing
from forktui.tui.widgets.activity_log import ActivityLog
from forktui.tui.widgets.alarm_strip import AlarmStrip
from forktui.tui.widgets.banner import Banner
from forktui.tui.widgets.burst import BurstPane
from forktui.tui.widgets.command_line import CommandLine
from forktui.tui.widgets.details import Facts, FaultRate
from forktui.tui.widgets.first_steps import FirstSteps
from forktui.tui.widgets.fork_tree import ForkTree
from forktui.tui.widgets.heat_map import HeatMap
from forktui.tui.widgets.key_bar import KeyBar
from forktui.tui.widgets.overview import Overview
from forktui.tui.widgets.status_line import StatusLine
from forktui.tui.widgets.tree_pane import TreePane
from forktui.view.page_heat import has_page_map
from supervisor.models import Instance

OFFERED = [action for action in ACTIONS if action.footer]
PAGE_MAP_SECONDS = 0.5
"""The least time between two readings of a page map."""


class Dashboard(Sparing, Screen[None]):
    """What is shown of the world, and which keys do what; it asks the application for everything else.

    `now` is the supervisor's clock, which its statistics are stamped with; `clock` is monotonic. Both are in seconds.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding(",".join(action.keys), f"do('{action.word}')", action.label, show=False) for action in ACTIONS
    ]

    def __init__(self, attachment: Attachment, now: Callable[[], float], clock: Callable[[], float]) -> None:
        super().__init__()
        self.world = World()
        self.connection = Connection()
        # At once, not by a message: what a key changes is drawn together, not a frame later.
        self.fork_tree = ForkTree(self._show_selected, id="tree")
        self._now = now
        self._clock = clock
        self._attachment = attachment
        self._status = StatusLine(attachment)
        self._banner = Banner()
        self._alarms = AlarmStrip()
        self._first_steps = FirstSteps(private=attachment.private)
        self.forest = TreePane(self.fork_tree, self._first_steps)
        self._command_line = CommandLine(lambda: self.world)
        self._inspector = Container(id="inspector")
        self._facts = Facts()
        self._fault_rate = FaultRate()
        self._heat_map = HeatMap()
        self._overview = Overview()
        self._activity = ActivityLog(id="activity")
        self._burst = BurstPane()
        self._keys = KeyBar()
        self._family: Family | None = None
        self._asked: tuple[object, ...] = ()
        self._possible: dict[str, bool] = {}
        """Which verbs can be done to all that are marked."""
        self._page_map_read: tuple[object, ...] = ()
        self._page_map_read_at = float("-inf")

    def compose(self) -> ComposeResult:
        yield self._status
        yield self._banner
        yield self._alarms
        with Container(id="body"):
            yield self.forest
            with self._inspector:
                yield self._facts
                with Vertical(id="memory"):
                    yield self._fault_rate
                    yield self._heat_map
            yield self._overview
        yield self._burst
        yield self._activity
        yield self._command_line
        yield self._keys

    def on_mount(self) -> None:
        self.fork_tree.focus()

    @property
    def selected(self) -> Instance | None:
        """The instance under the cursor."""
        return self.world.instances.get(self.fork_tree.cursor_id or "")

    def show(self, world: World, connection: Connection, change: Change) -> None:
        """Draw what `change` has made of the world."""
        if self._family is not None:
            self._family = family_after(self._family, self.world, world, change)
        if change.everything or not change.shown.isdisjoint(self.fork_tree.marked):
            self._possible = {}
        self.world, self.connection = world, connection
        with self.app.batch_update():
            self._status.show(world, connection)
            self._alarms.show(world)
            self.fork_tree.show(world, change)
            self._activity.show(world)
            self._show_connection(connection)
            self._first_steps.show(world, self._forbidden(), connection.reason)
            self.set_class(not world.instances, "-empty")
            self._show_burst()
            self._show_selected()
        for screen in tuple(self.app.screen_stack):
            if isinstance(screen, Dialog):
                screen.hear(world)

    def tick(self, connection: Connection) -> None:
        """Draw what depends on the time alone."""
        self._show_connection(connection)
        self._facts.show(self.world, self._family, self._now())
        self.fork_tree.tick(self._clock())
        self._fault_rate.show(self.world, self._family, self._now())
        self._overview.show(self.world, self._now())
        self._read_page_map()

    def show_page_map(self, message: PageMapRead) -> None:
        """Draw a page map that was asked for."""
        if message.fold is not None:
            self._heat_map.show(message.fold)
            self._facts.show_fold(message.fold)
        else:
            self._heat_map.refuse(message.instance_id, message.refusal)
            # To be asked for again, whether or not anything changes.
            self._page_map_read = self._page_map_read[:2]

    def refusal(self, verb: Verb, ids: Sequence[str] | None = None) -> str | None:
        """Why a verb cannot be done now to these, or to what it acts on; None where it can."""
        return verb.refused(self.world, self._targets(verb) if ids is None else ids, self._forbidden())

    def _forbidden(self) -> str | None:
        """Why nothing at all can be changed now."""
        return forbidden(self.world.supervisor, live=self.connection.live, read_only=self._attachment.read_only)

    def _show_connection(self, connection: Connection) -> None:
        """Say whether what is shown is true now, and draw it faintly where it may not be."""
        self.connection = connection
        data_dir = self.world.supervisor.data_dir if self.world.supervisor is not None else ""
        self._banner.show(connection, self._clock(), data_dir)
        for widget in (self.fork_tree, self._facts, self._fault_rate, self._heat_map):
            widget.dim(connection.stale)

    def action_do(self, word: str) -> None:
        """Do an action, or say why not."""
        action = BY_WORD[word]
        ids = self._targets(action) if isinstance(action, Verb) else ()
        refusal = self._perform(Command(action, ids=ids))
        if refusal is not None and isinstance(action, Verb):
            self.post_message(Said(refusal, "warning", lambda: self.refusal(action, ids) == refusal))

    @on(CommandLine.Said)
    def _line_said(self, message: CommandLine.Said) -> None:
        try:
            command = understood(message.line, self.world, self._targets)
        except NotUnderstoodError as error:
            self._command_line.refuse(safe_text(str(error)))
            return
        refusal = self._perform(command) if command is not None else None
        if refusal is not None:
            self._command_line.refuse(refusal)
        else:
            self._line_left()

    @on(CommandLine.Left)
    def _line_left(self) -> None:
        self._command_line.close()
        if self.focused is None or self.focused.id != "filter":
            self.fork_tree.focus()

    @on(KeyBar.Clicked)
    def _key_clicked(self, event: KeyBar.Clicked) -> None:
        self.action_do(event.action.word)

    def key_escape(self) -> None:
        """End the filter."""
        if self.forest.is_filtered:
            self.forest.end_filter()

    def on_resize(self) -> None:
        self._alarms.lay_out()
        self.call_after_refresh(self._read_page_map)

    def _targets(self, verb: Verb) -> tuple[str, ...]:
        if verb.makes:
            return ()
        return self.fork_tree.selection if not verb.one else tuple(filter(None, [self.fork_tree.cursor_id]))

    def _show_selected(self) -> None:
        instance = self.selected
        if instance is None or self._family is None or self._family.root != instance.id:
            self._family = None if instance is None else self._family_beside(instance.id)
        self._inspector.set_class(instance is None or not has_page_map(instance), "alone")
        self._facts.show(self.world, self._family, self._now())
        self._fault_rate.show(self.world, self._family, self._now())
        self._heat_map.select(instance)
        self._show_keys()
        self._read_page_map()

    @on(ForkTree.Arranged)
    def _show_keys(self) -> None:
        tree = self.fork_tree.shown
        offers = [(action, self._is_possible(action)) for action in OFFERED]
        self._keys.show(offers, len(tree.marked), len(tree.hidden_marks))

    def _family_beside(self, root: str) -> Family:
        tree = self.fork_tree.shown
        return family_beside(self._family, self.world, root, tree.forest.below(root))

    def _is_possible(self, action: Action) -> bool:
        if not isinstance(action, Verb):
            return True
        # Of ten thousand that are marked, each is looked at: not at each key, but when they are others.
        marked, asked = self.fork_tree.marked, (self.fork_tree.marked, self.connection.live, self.world.supervisor)
        if not marked or action.one or action.makes:
            return self.refusal(action) is None
        if self._asked != asked:
            self._asked, self._possible = asked, {}
        if action.word not in self._possible:
            self._possible[action.word] = self.refusal(action) is None
        return self._possible[action.word]

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

    def _perform(self, command: Command) -> str | None:
        """Do what a key or a line asks for, or ask first; returns why it is refused, None where it is not."""
        action, ids = command.action, command.ids
        if isinstance(action, OnScreen):
            action.do(self, command.words)
            return None
        assert isinstance(action, Verb)
        refusal = self.refusal(action, ids)
        if refusal is None:
            self._ask_then_do(
                action, [self.world.instances[i] for i in ids if i in self.world.instances], command.values
            )
        return refusal

    def _ask_then_do(self, verb: Verb, targets: list[Instance], given: Values) -> None:
        ids = [instance.id for instance in targets]

        def asked(adds: Values | None) -> None:
            if adds is not None:
                self._unmark(ids)
                self.post_message(Wanted(verb, ids, adds))

        def filled(done: Values | None) -> None:
            if done is not None:
                self._unmark(ids)

        refusal = partial(self.refusal, verb)
        if verb.form is not None:
            form = verb.form(self.world, targets)
            self.app.push_screen(FormDialog(verb, form, targets, refusal, given or None), filled)
        elif (question := verb.question(self.world, targets)) is not None:
            self.app.push_screen(Confirm(question, targets, refusal, verb.plan), asked)
        else:
            asked({})

    def _unmark(self, ids: Sequence[str]) -> None:
        self.fork_tree.set_marks(self.fork_tree.marked.difference(ids))

    def open_command_line(self) -> None:
        self._command_line.open()

    def show_console(self) -> None:
        if self.selected is not None:
            self.post_message(ConsoleWanted(self.selected.id))

    def copy_id(self) -> None:
        if self.selected is not None:
            self.app.copy_to_clipboard(self.selected.id)
            self.post_message(Said(f"{self.selected.name}: {self.selected.id} sent to the clipboard"))

    @on(ForkTree.ColumnsWanted)
    def choose_columns(self) -> None:
        self.app.push_screen(ColumnPicker(self.fork_tree))

    def toggle_details(self) -> None:
        shown = self._inspector.display
        self.set_class(not shown, "details")
        self.set_class(shown, "no-details")
        self.call_after_refresh(self._read_page_map)

    def show_details(self) -> None:
        if self.selected is not None:
            self.app.push_screen(Inspection(self.world, self.selected, self.family, self._now))

    def family(self, instance_id: str) -> Family:
        """The family of an instance, which is known already where it is the selected one."""
        known = self._family
        return known if known is not None and known.root == instance_id else family_of(self.world, instance_id)

    def toggle_events(self) -> None:
        self._activity.display = not self._activity.display

    @on(ActivityLog.Opened)
    def show_events(self) -> None:
        self.app.push_screen(Events(self.world, self.selected))

    @on(BurstPane.Clicked)
    def show_fan_outs(self) -> None:
        self.app.push_screen(FanOuts(self.world, lambda source_id: self.refusal(CANCEL, [source_id])))

    def dismiss_fan_outs(self) -> None:
        self._burst.dismiss()
        self._show_burst()

    def _show_burst(self) -> None:
        """Draw the fan-out that goes on in the place of the events, which tell of it once it has ended."""
        if self._burst.show(self.world):
            self.set_class(self._burst.display, "bursting")
            if self._burst.display and self._activity.has_focus:
                self.fork_tree.focus()

    def hold_events(self) -> None:
        self._activity.hold(not self._activity.held)

    @on(AlarmStrip.Opened)
    def show_alarms(self) -> None:
        self.app.push_screen(AlarmsScreen(self.world, lambda: self.connection.stale), self.fork_tree.move_to)

    def reconnect(self) -> None:
        self.post_message(RetryWanted())

    def show_help(self, words: str) -> None:
        width = min(self.size.width - READING_MARGIN, READING_WIDTH)
        moves = [
            (binding.key_display or binding.key, binding.description)
            for binding in ForkTree.BINDINGS
            if isinstance(binding, Binding)
        ]
        self.app.push_screen(Help(moves, width, words))

    def leave(self) -> None:
        question = leaving(self.world) if self._attachment.private else None
        if question is None:
            self.app.exit()
        else:
            self.app.push_screen(Confirm(question, (), lambda ids: None), self._answered_leaving)

    def _answered_leaving(self, answer: Values | None) -> None:
        if answer is not None:
            self.app.exit()
