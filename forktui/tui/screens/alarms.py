"""The alarms in full: to read, to acknowledge, and to go to whom each concerns."""

from collections.abc import Callable
from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen

from forktui.model.world import World
from forktui.tui.messages import Acknowledged
from forktui.tui.screens.reading import Words
from forktui.tui.sparing import Sparing
from forktui.tui.widgets.alarm_list import AlarmList
from forktui.view.alarms import heading

KEYS = "Enter goes there  Space acknowledges  A all of them  Esc closes"


class AlarmsScreen(Sparing, ModalScreen[str | None]):
    """What is wrong and what was; the result is the id of an instance to go to.

    `stale` says whether what is known may be old.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,a,question_mark", "dismiss(None)", "Close"),
        Binding("space", "acknowledge", "Acknowledge"),
        Binding("A", "acknowledge_all", "Acknowledge all"),
        Binding("enter", "go", "Go to whom it concerns"),
    ]

    def __init__(self, world: World, stale: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self._world = world
        self._stale = stale
        self._heading = Words(heading(world.alarms, stale=stale()))
        self.view = AlarmList()

    def compose(self) -> ComposeResult:
        with Vertical(classes="reading"):
            yield self._heading
            yield self.view
            yield Words([], KEYS)

    def on_mount(self) -> None:
        self.view.focus()
        self.show(self._world)

    def show(self, world: World) -> None:
        """Draw what has become of the alarms."""
        self._world = world
        self._heading.say(heading(world.alarms, stale=self._stale()))
        self.view.show(world, stale=self._stale())

    def action_acknowledge(self) -> None:
        if self.view.chosen is not None:
            self.app.post_message(Acknowledged([self.view.chosen]))

    def action_acknowledge_all(self) -> None:
        self.app.post_message(Acknowledged(None))

    def action_go(self) -> None:
        chosen = self.view.chosen
        if chosen is not None and chosen.concerns in self._world.instances:
            self.dismiss(chosen.concerns)
