"""The fan-out that goes on, or the last one, until it is dismissed."""

from datetime import datetime

from textual.message import Message

from forktui.model.bursts import Burst
from forktui.model.world import World
from forktui.tui.widgets.inked import Painting
from forktui.view.burst_panes import in_short
from forktui.view.styled_lines import Line

KEYS = "b opens it, B closes it"
KEYS_WHILE_IT_GOES_ON = "b opens it (X cancels), B closes it"


class BurstPane(Painting):
    """Shown once a fan-out has been seen to go on; what is dismissed does not come back."""

    class Clicked(Message):
        """The mouse wants to see it in full."""

    def __init__(self) -> None:
        super().__init__(id="burst")
        self._bursts: list[Burst] = []
        self._dismissed: frozenset[str] = frozenset()
        self._now: datetime | None = None
        self.display = False

    def show(self, world: World) -> bool:
        """Draw the newest fan-out of a world that is not dismissed; returns whether the pane came or went by that."""
        listed = [one for one in world.bursts.listed if one.seen and one.id not in self._dismissed]
        if not listed and not self._bursts:
            return False
        changed = bool(listed) != bool(self._bursts)
        going = any(one.running for one in listed)
        if going or changed or listed != self._bursts:
            self._bursts, self._now = listed, world.statistics_at
            keys = KEYS_WHILE_IT_GOES_ON if going else KEYS
            # Another title draws the whole pane.
            if self.border_title != keys:
                self.border_title = keys
            self.repaint()
        if changed:
            self.display = bool(listed)
        return changed

    def dismiss(self) -> None:
        """Show none of these any more."""
        self._dismissed = frozenset(one.id for one in self._bursts) | self._dismissed

    def on_click(self) -> None:
        self.post_message(self.Clicked())

    def paint(self, width: int, height: int) -> list[Line]:
        if not self._bursts:
            return []
        # One that goes on before one that has ended.
        first = next((one for one in reversed(self._bursts) if one.running), self._bursts[-1])
        return in_short(first, len(self._bursts) - 1, self._now, width, height, self.glyphs)
