"""What one does next, in the place of a tree without any instance."""

from typing import Final

from forktui.actions.creation import CREATE
from forktui.actions.forks import FAN_OUT
from forktui.actions.on_screen import COMMAND_LINE, HELP
from forktui.actions.states import STANDBY
from forktui.model.world import World
from forktui.tui.widgets.inked import Painting
from forktui.view.first_steps import Steps, first_steps
from forktui.view.styled_lines import Line

_MAKES: Final = (
    (CREATE.key, "makes one: an image boots, such as pagewalker, which is built in"),
    (STANDBY.key, "puts it to standby, once it runs: its memory becomes a snapshot"),
    (FAN_OUT.key, "fans out: as many forks of that memory as you say, and as fit"),
)
_LOOKS: Final = (
    (COMMAND_LINE.key, "takes the same in words, as in: create web --size 128MB"),
    (HELP.key, "lists every key"),
)


class FirstSteps(Painting):
    """Shown while there is no instance."""

    def __init__(self, *, private: bool) -> None:
        super().__init__(id="first-steps")
        self._world = World()
        self._steps = Steps(_MAKES, _LOOKS, private=private)
        self.display = False

    def show(self, world: World, forbidden: str | None, waits_for: str) -> None:
        """Draw what can be done on an empty host.

        `forbidden` is why nothing can be made, `waits_for` why nothing is known of a supervisor.
        """
        if self.display != (not world.instances):
            self.display = not world.instances
        if self.display:
            self._world = world
            self._steps = Steps(_MAKES, _LOOKS, forbidden, self._steps.private, waits_for)
            self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        lines = first_steps(self._world.supervisor, self._steps, width)
        if len(lines) > height:
            lines = [line for line in lines if line]
        return lines if len(lines) <= height else [*lines[: height - 1], [(f"  {self.glyphs.ellipsis}", "muted")]]
