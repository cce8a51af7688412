"""The application: owns the world and the client, reduces events to the one, makes requests of the other."""

import os
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

from textual.app import SystemCommand
from textual.notifications import SeverityLevel
from textual.screen import Screen
from textual.scrollbar import ScrollBar, ScrollBarRender

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.client.feed import Connection, Feed
from forktui.model.actions import ACTIONS
from forktui.model.world import World, reduce
from forktui.text.quantities import fits
from forktui.text.remedies import in_dashboard
from forktui.text.safe import ascii_text, safe_model, safe_text
from forktui.tui import verbs
from forktui.tui.choices import KeptChoices
from forktui.tui.messages import (
    ConsoleWanted,
    Estimated,
    EstimateWanted,
    Finished,
    Heard,
    LinkChanged,
    PageMapRead,
    PageMapWanted,
    Planned,
    PlanWanted,
    Said,
    Wanted,
)
from forktui.tui.screens.console import CONSOLE_LINES, Console
from forktui.tui.screens.dashboard import Dashboard
from forktui.tui.screens.dialogs import FanOutPrompt
from forktui.tui.screens.events import Events
from forktui.tui.terminal_app import TerminalApp
from forktui.tui.widgets.inked import AsciiScrollBar
from forktui.view.glyphs import ASCII, glyphs
from supervisor.models import Event, FanOutRequest, Statistics

STATISTICS_SECONDS = 0.25
"""How long counters that changed wait to be drawn, so that a burst is drawn once."""
CHANGE_SECONDS = 0.05
"""The same for everything else: what a key did must show at once."""
TICK_SECONDS = 1.0
REPEAT_SECONDS = 2.0
"""The same line is not said twice within this time."""


Companion = Callable[[], Awaitable[str | None]]
"""What runs beside the dashboard until it is quit; a line that it returns is shown as a failure."""


class ForkTui(TerminalApp):
    """The dashboard of one supervisor.

    `source` is the supervisor's socket, or a client of it that is not entered yet. `on_mount_focus` is the name of the
    instance that the cursor begins on. `clock` is monotonic; `now` is the supervisor's clock,
    which is else reckoned from its statistics. `choices` are what its user has chosen before.
    """

    CSS_PATH = Path(__file__).with_name("forktui.tcss")
    TITLE = "forktui"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (100, "-normal"), (160, "-wide")]  # noqa: RUF012
    VERTICAL_BREAKPOINTS = [(0, "-short"), (30, "-medium"), (38, "-tall")]  # noqa: RUF012

    def __init__(
        self,
        source: Path | SupervisorClient,
        *,
        on_mount_focus: str | None = None,
        title: str = "",
        companion: Companion | None = None,
        now: Callable[[], float] | None = None,
        clock: Callable[[], float] = time.monotonic,
        choices: KeptChoices | None = None,
    ) -> None:
        super().__init__(choices or KeptChoices(None))
        self.client = SupervisorClient(source) if isinstance(source, Path) else source
        self.world = World()
        self.glyphs = glyphs(os.environ)
        self.dashboard = Dashboard(safe_text(str(self.client.socket)), safe_text(title), now or self._now, clock)
        self._feed = Feed(self.client, self._post_heard, self._post_link, clock)
        self._clock = clock
        self._ahead = 0.0
        """How far the supervisor's clock is ahead of this one's, by its last statistics."""
        self._focus = on_mount_focus
        self._companion = companion
        self._changed: set[str] | None = set()
        self._draw_at = float("inf")
        self._said: dict[str, float] = {}

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        yield from super().get_system_commands(screen)
        if screen is self.dashboard:
            for action in ACTIONS:
                yield SystemCommand(
                    f"{action.name} ({action.key})",
                    action.help,
                    partial(self.dashboard.action_do, action.id),
                )

    def on_mount(self) -> None:
        self.set_class(self.glyphs is ASCII, "-ascii")
        ScrollBar.renderer = AsciiScrollBar if self.glyphs is ASCII else ScrollBarRender
        self.push_screen(self.dashboard)
        self.set_interval(TICK_SECONDS, self.dashboard.tick)
        self.run_worker(self._live(), name="feed")
        if self._companion is not None:
            self.run_worker(self._accompany(self._companion), name="companion")

    def on_heard(self, message: Heard) -> None:
        event = message.event
        self.world = reduce(self.world, event)
        if isinstance(event, Statistics):
            self._ahead = event.clock - self._clock()
            if self._changed is not None:
                self._changed.update(counters.id for counters in event.instances)
            self._draw_in(STATISTICS_SECONDS)
        else:
            self._changed = None
            self._draw_in(CHANGE_SECONDS)

    def on_link_changed(self, message: LinkChanged) -> None:
        self._changed = None
        self._draw_in(CHANGE_SECONDS)

    def on_wanted(self, message: Wanted) -> None:
        self.run_worker(self._carry_out(message), name=message.action_id)

    def on_plan_wanted(self, message: PlanWanted) -> None:
        self.run_worker(self._plan(message.instance_id), name="plan", group="plan", exclusive=True)

    def on_planned(self, message: Planned) -> None:
        self.dashboard.ask_to_delete(message.plan)

    def on_estimate_wanted(self, message: EstimateWanted) -> None:
        self.run_worker(self._estimate(message.instance_id), name="estimate", group="estimate", exclusive=True)

    def on_estimated(self, message: Estimated) -> None:
        if isinstance(self.screen, FanOutPrompt):
            self.screen.show_estimate(message.line)

    def on_finished(self, message: Finished) -> None:
        if message.outcome.done:
            self._say(message.outcome.done, "information")
        for failure in message.outcome.failures:
            self._say(failure, "error")

    def on_said(self, message: Said) -> None:
        self._say(message.line, message.severity)

    def on_page_map_wanted(self, message: PageMapWanted) -> None:
        self.run_worker(self._read_page_map(message), name="page map", group="page map", exclusive=True)

    def on_page_map_read(self, message: PageMapRead) -> None:
        self.dashboard.show_page_map(message)

    def on_console_wanted(self, message: ConsoleWanted) -> None:
        # What is drawn is a moment old: it may be deleted.
        instance = self.world.instances.get(message.instance_id)
        if instance is not None:
            self.push_screen(Console(instance, partial(self.client.follow_log, instance.id, CONSOLE_LINES, "app")))

    def on_retry_wanted(self) -> None:
        self._feed.retry_now()

    def _now(self) -> float:
        return self._clock() + self._ahead

    def _post_heard(self, event: Event) -> None:
        self.post_message(Heard(event))

    def _post_link(self, connection: Connection) -> None:
        self.post_message(LinkChanged(connection))

    async def _live(self) -> None:
        async with self.client:
            await self._feed.run()

    async def _accompany(self, companion: Companion) -> None:
        if failure := await companion():
            self.post_message(Said(safe_text(failure), "error"))

    async def _carry_out(self, wanted: Wanted) -> None:
        if wanted.action_id == "fan_out":
            outcome = await verbs.fan_out(self.client, self.world, wanted.instance_ids[0], wanted.count)
        else:
            outcome = await verbs.ON_EACH[wanted.action_id](self.client, self.world, wanted.instance_ids)
        self.post_message(Finished(outcome))

    async def _plan(self, instance_id: str) -> None:
        try:
            plan = await self.client.deletion_plan(instance_id, cascade=True)
        except (ApiError, SupervisorUnreachableError) as error:
            self.post_message(Said(in_dashboard(error), "error"))
        else:
            self.post_message(Planned(safe_model(plan)))

    async def _estimate(self, instance_id: str) -> None:
        try:
            estimate = await self.client.fan_out_estimate(instance_id, FanOutRequest(count=1))
        except (ApiError, SupervisorUnreachableError) as error:
            self.post_message(Estimated(in_dashboard(error)))
        else:
            self.post_message(Estimated(f"fits: {fits(estimate)}"))

    async def _read_page_map(self, wanted: PageMapWanted) -> None:
        try:
            fold = await self.client.memory(wanted.instance_id, wanted.cells)
        except (ApiError, SupervisorUnreachableError) as error:
            self.post_message(PageMapRead(wanted.instance_id, None, in_dashboard(error)))
        else:
            self.post_message(PageMapRead(wanted.instance_id, fold))

    def _draw_in(self, seconds: float) -> None:
        """Draw what has changed within `seconds`."""
        due = self._clock() + seconds
        if due < self._draw_at:
            self._draw_at = due
            self.set_timer(seconds, self._draw)

    def _draw(self) -> None:
        changed = None if self._changed is None else frozenset(self._changed)
        self._changed, self._draw_at = set(), float("inf")
        self.dashboard.show(self.world, self._feed.connection, changed)
        for screen in self.screen_stack:
            if isinstance(screen, Console | Events):
                screen.show(self.world)
        if self._focus is not None:
            self._focus_first()

    def _focus_first(self) -> None:
        chosen = [instance.id for instance in self.world.instances.values() if instance.name == self._focus]
        if chosen:
            self.dashboard.fork_tree.move_to(chosen[0])
            self._focus = None

    def _say(self, line: str, severity: SeverityLevel) -> None:
        now = self._clock()
        self._said = {said: at for said, at in self._said.items() if now < at + REPEAT_SECONDS}
        if line not in self._said:
            self._said[line] = now
            shown = ascii_text(line) if self.glyphs is ASCII else line
            self.notify(shown, severity=severity, markup=False, timeout=4 if severity == "information" else 8)
