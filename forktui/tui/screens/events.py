"""The events in full."""

from typing import ClassVar

from textual.binding import Binding, BindingType

from forktui.model.world import World
from forktui.tui.screens.reading import Reading
from forktui.tui.widgets.activity_log import ActivityLog
from supervisor.models import Instance


class Events(Reading):
    """What happened on the host, as far as it is kept, or to the instance that is selected."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("e,E", "dismiss", "Close"),
        Binding("i", "only", "Of the selected instance, or of all"),
    ]

    KEYS = f"i selected instance  {Reading.KEYS}"

    def __init__(self, world: World, selected: Instance | None) -> None:
        self._log = ActivityLog(wraps=True)
        super().__init__("Events", view=self._log)
        self._world = world
        self._selected = selected

    def on_mount(self) -> None:
        super().on_mount()
        self.show(self._world)

    def show(self, world: World) -> None:
        """Draw what has happened since."""
        self._log.show(world)

    def action_only(self) -> None:
        if self._selected is None:
            return
        only = None if self._log.only else self._selected
        self._log.show_only(only.id if only else None)
        self._heading.say([(f"Events of {only.name}" if only else "Events", "strong")])
