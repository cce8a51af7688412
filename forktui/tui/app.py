"""The application: owns the world and the client, reduces events to the one, makes requests of the other."""

import asyncio
import os
import sys
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from textual.app import SystemCommand
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.scrollbar import ScrollBar, ScrollBarRender

from forktui.actions.registry import ACTIONS
from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.client.feed import Connection, Feed
from forktui.model.change import NOTHING, Change
from forktui.model.reducing import in_pieces, reduce_all
from forktui.model.world import World
from forktui.text.remedies import in_dashboard
from forktui.text.safe import ascii_text, safe_text
from forktui.tui.attachment import Attachment
from forktui.tui.choices import KeptChoices
from forktui.tui.later import later
from forktui.tui.messages import (
    Acknowledged,
    Asking,
    ConsoleWanted,
    Finished,
    Heard,
    LinkChanged,
    PageMapRead,
    PageMapWanted,
    Said,
    Wanted,
)
from forktui.tui.pace import CHANGE_SECONDS, STATISTICS_SECONDS, Pace
from forktui.tui.screens.alarms import AlarmsScreen
from forktui.tui.screens.console import CONSOLE_LINES, Console
from forktui.tui.screens.dashboard import Dashboard
from forktui.tui.screens.forms import FormDialog
from forktui.tui.screens.reading import Reading
from forktui.tui.terminal_app import TerminalApp
from forktui.tui.toasts import Holds, Toasts, always
from forktui.tui.widgets.fork_tree import ForkTree
from forktui.tui.widgets.inked import AsciiScrollBar
from forktui.view.glyphs import ASCII, glyphs
from supervisor.models import Event, Statistics

REDUCE_SECONDS = 0.004
"""For which events are reduced at a time, with as long a pause: a key passes through many turns of the loop."""
REDUCED_AT_ONCE = 50
"""Events between two looks at the clock."""
TICK_SECONDS = 1.0


Companion = Callable[[], Awaitable[str | None]]
"""What runs beside the dashboard until it is quit; a line that it returns is shown as a failure."""


class ForkTui(TerminalApp):
    """The dashboard of one supervisor.

    `source` is the supervisor's socket, or a client of it that is not entered yet. `on_mount_focus` is the name of the
    instance that the cursor begins on. `private` tells that the supervisor ends with the dashboard. `clock` is
    monotonic; `now` is the supervisor's clock, which is else reckoned from its statistics. `choices` are what its user
    has chosen before.
    """

    CSS_PATH = Path(__file__).with_name("forktui.tcss")
    TITLE = "forktui"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide"), (200, "-widest")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-low"), (18, "-short"), (30, "-medium"), (38, "-tall")]  # noqa: RUF012

    def __init__(
        self,
        source: Path | SupervisorClient,
        *,
        on_mount_focus: str | None = None,
        title: str = "",
        companion: Companion | None = None,
        private: bool = False,
        now: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        choices: KeptChoices | None = None,
    ) -> None:
        super().__init__(choices or KeptChoices(None))
        self.client = SupervisorClient(source) if isinstance(source, Path) else source
        self.world = World()
        self.glyphs = glyphs(os.environ)
        attachment = Attachment(safe_text(str(self.client.socket)), safe_text(title), private, self.client.read_only)
        self.dashboard = Dashboard(attachment, now or self._now, clock)
        self.dashboard.fork_tree.columns = self.choices.now.columns
        self._feed = Feed(self.client, self._post_heard, self._post_link, clock, self._post_heard)
        self._clock = clock
        self._ahead = 0.0
        """How far the supervisor's clock is ahead of this one's, by its last statistics."""
        self._sought = on_mount_focus
        """Whose name the cursor is to go to, once there is one of it."""
        self._made: str | None = None
        """The id of what its user has made, where the cursor goes once it is told of."""
        self._companion = companion
        self._inbox: deque[Event] = deque()
        """What is not reduced yet; a message that asks for that is under way while there is any."""
        self._change = NOTHING
        """What is not drawn yet."""
        self._pace = Pace()
        self._drawing: asyncio.TimerHandle | None = None
        self._toasts = Toasts(self, clock)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        yield from super().get_system_commands(screen)
        if screen is self.dashboard:
            for action in ACTIONS:
                yield SystemCommand(
                    f"{action.name} ({action.key})",
                    action.help,
                    partial(self.dashboard.action_do, action.word),
                )

    def on_mount(self) -> None:
        self.set_class(self.glyphs is ASCII, "-ascii")
        ScrollBar.renderer = AsciiScrollBar if self.glyphs is ASCII else ScrollBarRender
        self.push_screen(self.dashboard)
        self.set_interval(TICK_SECONDS, self._tick)
        self.run_worker(self._live(), name="feed")
        if self._companion is not None:
            self.run_worker(self._accompany(self._companion), name="companion")

    def on_heard(self, message: Heard) -> None:
        for event in message.events:
            self._inbox.extend(in_pieces(event))
        pause = self._clock() + REDUCE_SECONDS
        while self._inbox and self._clock() < pause:
            only_counters = self._reduce_some()
            # What nobody has seen yet waits for nothing.
            waits = STATISTICS_SECONDS if only_counters else CHANGE_SECONDS
            self._draw_in(0.0 if self._change.everything else waits)
        if self._inbox:
            later(self, REDUCE_SECONDS, partial(self.post_message, Heard()))

    def on_link_changed(self, message: LinkChanged) -> None:
        self._draw_in(CHANGE_SECONDS)

    def on_wanted(self, message: Wanted) -> None:
        self.run_worker(self._carry_out(message), name=message.verb.word)

    def on_asking(self, message: Asking[Any]) -> None:
        self.run_worker(self._ask(message), name=message.group, group=message.group, exclusive=True)

    def on_finished(self, message: Finished) -> None:
        dialog, outcome = message.dialog, message.outcome
        if isinstance(dialog, FormDialog) and dialog.is_current:
            if outcome.failures and not outcome.done:
                dialog.refuse(outcome.failures)
                return
            dialog.taken()
        if outcome.made:
            self._made = outcome.made
            self._draw_in(CHANGE_SECONDS)
        if outcome.done:
            self._say(outcome.done, "information")
        for failure in outcome.failures:
            self._say(failure, "error", self._until_connected_again())

    def on_said(self, message: Said) -> None:
        self._say(message.line, message.severity, message.holds)

    def on_page_map_wanted(self, message: PageMapWanted) -> None:
        self.run_worker(self._read_page_map(message), name="page map", group="page map", exclusive=True)

    def on_page_map_read(self, message: PageMapRead) -> None:
        self.dashboard.show_page_map(message)

    def on_console_wanted(self, message: ConsoleWanted) -> None:
        # What is drawn is a moment old: it may be deleted.
        instance = self.world.instances.get(message.instance_id)
        if instance is not None:
            self.push_screen(Console(instance, partial(self.client.follow_log, instance.id, CONSOLE_LINES, "app")))

    def on_console_typing_wanted(self, message: Console.TypingWanted) -> None:
        instance, about = message.instance, self.world.supervisor
        if self.client.read_only or (about is not None and not about.writable):
            self._say(f"{instance.name}: nothing can be typed: this dashboard may only look", "warning")
            return
        whose = [] if self.client.supervisor_user is None else ["--supervisor-user", str(self.client.supervisor_user)]
        command = ("-m", "forktui", "console", "--socket", str(self.client.socket), *whose, instance.id)
        self.run_worker(self.run_beside(sys.executable, *command), name="typing", group="typing")

    def on_fork_tree_columns_chosen(self, message: ForkTree.ColumnsChosen) -> None:
        self.run_worker(self._keep(columns=message.choices), name="choices", group="choices")

    def on_acknowledged(self, message: Acknowledged) -> None:
        self.world = self.world.acknowledge(message.alarms)
        self._change |= self.world.change
        self._draw_in(CHANGE_SECONDS)

    def on_retry_wanted(self) -> None:
        self._feed.retry_now()

    def _tick(self) -> None:
        self.dashboard.tick(self._feed.connection)
        self._toasts.review()

    def _now(self) -> float:
        return self._clock() + self._ahead

    def _post_heard(self, event: Event) -> None:
        # One message for all that waits: Textual takes longer for a message than an event does.
        if not self._inbox:
            self.post_message(Heard())
        self._inbox.extend(in_pieces(event))

    def _reduce_some(self) -> bool:
        """Reduce what came first, some events or one piece of statistics; returns whether it was that alone."""
        events: list[Event] = []
        while self._inbox and len(events) < REDUCED_AT_ONCE:
            event = self._inbox.popleft()
            events.append(event)
            if isinstance(event, Statistics):
                self._ahead = event.clock - self._clock()
                break
        self.world = reduce_all(self.world, events)
        self._change |= self.world.change
        return all(isinstance(event, Statistics) for event in events)

    def _post_link(self, connection: Connection) -> None:
        self.post_message(LinkChanged(connection))

    async def _live(self) -> None:
        async with self.client:
            await self._feed.run()

    async def _accompany(self, companion: Companion) -> None:
        if failure := await companion():
            self.post_message(Said(safe_text(failure), "error"))

    async def _carry_out(self, wanted: Wanted) -> None:
        outcome = await wanted.verb.do(self.client, self.world, wanted.instance_ids, wanted.values)
        self.post_message(Finished(outcome, wanted.dialog))

    async def _ask(self, asking: Asking[Any]) -> None:
        try:
            answer = await asking.ask(self.client, self.world)
        except (ApiError, SupervisorUnreachableError) as error:
            asking.dialog.call_later(asking.refuse, in_dashboard(error))
        else:
            asking.dialog.call_later(asking.tell, answer)

    async def _read_page_map(self, wanted: PageMapWanted) -> None:
        try:
            fold = await self.client.memory(wanted.instance_id, wanted.cells)
        except (ApiError, SupervisorUnreachableError) as error:
            self.post_message(PageMapRead(wanted.instance_id, None, in_dashboard(error)))
        else:
            self.post_message(PageMapRead(wanted.instance_id, fold))

    def _draw_in(self, seconds: float) -> None:
        """Draw what has changed within `seconds`, or as soon as the pace allows."""
        now = self._clock()
        if self._pace.want(now, seconds):
            if self._drawing is not None:
                self._drawing.cancel()
            self._drawing = later(self, self._pace.due - now, self._draw)

    def _draw(self) -> None:
        began, change = self._clock(), self._change
        self._drawing, self._change = None, NOTHING
        self.dashboard.show(self.world, self._feed.connection, change)
        for screen in self.screen_stack:
            if isinstance(screen, Reading | AlarmsScreen):
                screen.show(self.world)
        self._toasts.review()
        self._pace.drawn(began, self._clock())
        self._move_to_what_came(change)

    def _move_to_what_came(self, change: Change) -> None:
        known = self.world.instances
        if self._sought is not None:
            came = known if change.everything else change.shown
            if named := [one for one in came if one in known and known[one].name == self._sought]:
                self._sought, self._made = None, self._made or named[0]
        if self._made in known:
            self.dashboard.fork_tree.move_to(self._made)
            self._made = None

    def _until_connected_again(self) -> Holds:
        """A cause that lasts until a connection that is, or will be, lost is there again."""
        lost = False

        def holds() -> bool:
            nonlocal lost
            lost = lost or not self._feed.connection.live
            return not (lost and self._feed.connection.live)

        return holds

    def _say(self, line: str, severity: SeverityLevel, holds: Holds = always) -> None:
        self._toasts.say(ascii_text(line) if self.glyphs is ASCII else line, severity, holds)
