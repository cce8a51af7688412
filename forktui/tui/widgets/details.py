"""The panes about the selected instance: its facts, its start, its faults per second."""

from forktui.model.family import Family
from forktui.model.world import World
from forktui.tui.widgets.inked import Painting
from forktui.view.facts import overview, start
from forktui.view.fault_rates import floored, rate_title, rates_of
from forktui.view.panels import in_columns
from forktui.view.sparkline import bars
from forktui.view.styled_lines import Line
from forktui.view.subject import Subject
from supervisor.models import PageMapFold

MORE = "I shows all"
"""What is said where there is more than fits."""


class Facts(Painting):
    """What there is to say of one instance, and the waterfall of its phases below."""

    def __init__(self) -> None:
        super().__init__(id="facts")
        self._world = World()
        self._family: Family | None = None
        self._fold: PageMapFold | None = None
        self._now = 0.0

    def show(self, world: World, family: Family | None, now: float) -> None:
        """Draw the facts of the instance at the root of a family of `world`, `now` in seconds of its clock."""
        self._world, self._family, self._now = world, family, now
        self.repaint()

    def show_fold(self, fold: PageMapFold) -> None:
        """Draw how long faults waited, where it is the instance's page map."""
        self._fold = fold
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        family = self._family
        instance = None if family is None else self._world.instances.get(family.root)
        if family is None or instance is None:
            return [[("Nothing is selected", "muted")]]
        fold = self._fold if self._fold is not None and self._fold.id == instance.id else None
        subject = Subject(self._world, instance, family, self.glyphs, self._now, fold)
        lines = in_columns(overview(subject), width, height, self.glyphs, MORE)
        phases = start(subject, width)
        return [*lines, *phases] if len(lines) + len(phases) <= height else lines


class FaultRate(Painting):
    """Faults per second of one instance, or of all its forks where it has no VMM itself."""

    def __init__(self) -> None:
        super().__init__(id="fault-rate")
        self._world = World()
        self._family: Family | None = None
        self._now = 0.0

    def show(self, world: World, family: Family | None, now: float) -> None:
        """Draw the half minute or so before `now`, in seconds of the supervisor's clock, of the root of a family."""
        self._world, self._family, self._now = world, family, now
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        family = self._family
        instance = None if family is None else self._world.instances.get(family.root)
        if family is None or instance is None or height < 2:
            return []
        subject = Subject(self._world, instance, family, self.glyphs, self._now)
        whose, rates = rates_of(subject, width)
        *upper, lowest = bars(rates, height - 1, self.glyphs)
        tall: list[Line] = [[(bar, "faulted")] for bar in upper]
        return [rate_title(whose, rates, width), *tall, floored(lowest, self.glyphs)]
