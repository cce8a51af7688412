"""A guest's console."""

import asyncio
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.message import Message

from forktui.client.followed_log import Follow, FollowedLog, LogLink, LogState
from forktui.model.world import World
from forktui.text.safe import safe_text
from forktui.tui.screens.reading import Reading
from forktui.tui.widgets.lines_view import LinesView
from forktui.view.columns import STATE_INKS
from forktui.view.styled_lines import Ink, Line
from supervisor.models import Instance

CONSOLE_LINES = 500
CONSOLE_LINE_LIMIT = 2000
TAB_WIDTH = 8
PRINT_SECONDS = 0.1
"""A guest may print faster than a terminal shows: what has come is drawn together."""
MOST_AT_ONCE = 2000
"""Lines of a console between two drawings: the others wait in its log, where the oldest go."""
_LINK_INKS: dict[LogLink, Ink] = {
    LogLink.CONNECTING: "waiting",
    LogLink.LIVE: "running",
    LogLink.LOST: "broken",
    LogLink.ENDED: "stopped",
}


class Console(Reading):
    """What a guest prints, while it prints it; whoever wants to type into it has the terminal for that."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("i", "type", "Type into it")]
    KEYS = f"i types  {Reading.KEYS}"

    class TypingWanted(Message):
        """The terminal is to be the guest's."""

        def __init__(self, instance: Instance) -> None:
            super().__init__()
            self.instance = instance

    def __init__(self, instance: Instance, follow: Follow) -> None:
        super().__init__("", view=LinesView())
        self._instance = instance
        self._log = FollowedLog(follow, CONSOLE_LINES, self._changed)
        self._gone = self._was_lost = False
        self._come: list[Line] = []
        self._room = asyncio.Event()

    def on_mount(self) -> None:
        super().on_mount()
        self._head()
        self.set_interval(PRINT_SECONDS, self._draw)
        self.run_worker(self._read(), exit_on_error=False)

    def show(self, world: World) -> None:
        """Say in which state the instance is."""
        instance = world.instances.get(self._instance.id)
        if (instance is None) != self._gone or (instance is not None and instance != self._instance):
            self._gone, self._instance = instance is None, instance or self._instance
            self._head()

    def action_type(self) -> None:
        self.post_message(self.TypingWanted(self._instance))

    def _head(self) -> None:
        state = self._instance.state
        line: Line = [(f"Console of {self._instance.name}", "strong"), ("  ", "plain")]
        if self._gone:
            line.append(("deleted", "stopped"))
        else:
            line.append((f"{self.view.glyphs.states[state]} {state}", STATE_INKS[state]))
        link = self._log.state.link
        self._heading.say([*line, ("  console ", "muted"), (link, _LINK_INKS[link])])

    async def _read(self) -> None:
        async for line in self._log.lines():
            self._come.append(console_line(line))
            if len(self._come) >= MOST_AT_ONCE:
                self._room.clear()
                await self._room.wait()

    def _changed(self, state: LogState) -> None:
        words = {
            LogLink.LIVE: state.reason or ("connected again" if self._was_lost else ""),
            LogLink.LOST: f"connection lost, it is tried again: {state.reason}",
            LogLink.ENDED: f"the console has ended: {state.reason}",
        }
        self._was_lost = state.link is LogLink.LOST
        if said := words.get(state.link):
            self._come.append([(f"-- {safe_text(said)} --", "notice")])
        self._head()

    def _draw(self) -> None:
        come, self._come = self._come, []
        self.view.add(come)
        self._room.set()


def console_line(line: str) -> Line:
    """A line that a guest has printed, as it can be drawn."""
    text = safe_text(line[: CONSOLE_LINE_LIMIT + 1].expandtabs(TAB_WIDTH), CONSOLE_LINE_LIMIT)
    return [(text, "broken" if "CORRUPT" in text else "plain")]
