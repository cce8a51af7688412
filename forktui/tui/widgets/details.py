"""The panes about the selected instance: its facts, its start, its faults per second."""

from collections.abc import Iterable

from forktui.model.family import Family
from forktui.model.faults import FaultSample, fault_rates
from forktui.model.world import World
from forktui.text.quantities import milliseconds, plural, rate
from forktui.tui.widgets.inked import Painting
from forktui.view.facts import facts, waterfall
from forktui.view.sparkline import bars
from forktui.view.styled_lines import Line, merged

SAMPLE_SECONDS = 0.5


class Facts(Painting):
    """What there is to say of one instance, and the waterfall of its phases below."""

    def __init__(self) -> None:
        super().__init__(id="facts")
        self._world = World()
        self._family: Family | None = None

    def show(self, world: World, family: Family | None) -> None:
        """Draw the facts of the instance at the root of a family of `world`."""
        self._world, self._family = world, family
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        instance = None if self._family is None else self._world.instances.get(self._family.root)
        if instance is None:
            return [[("Nothing is selected", "muted")]]
        lines = facts(self._world, instance, self.glyphs, self._family)
        phases = waterfall(instance.phases, width, self.glyphs)
        if phases and len(lines) + len(phases) + 1 <= height:
            whole = milliseconds(sum(phase.milliseconds for phase in instance.phases))
            lines += [[("start", "title"), (f"  {whole}", "plain")], *phases]
        return lines


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
        history: Iterable[FaultSample] = family.faults
        whose = f"faults/s of {plural(len(family.below), 'fork')}"
        if instance.vmm_pid is not None or not family.below:
            history, whose = self._world.fault_history(family.root), "faults/s"
        rates = fault_rates(history, self._now, width, SAMPLE_SECONDS)
        peak, last = max(rates, default=0.0), max(rates[-2:], default=0.0)
        title: Line = [(whose, "title"), (f"  now {rate(last)}  peak {rate(peak)}", "plain")]
        title.append((f"  last {round(width * SAMPLE_SECONDS)} s", "muted"))
        *upper, lowest = bars(rates, height - 1, self.glyphs)
        tall: list[Line] = [[(bar, "faulted")] for bar in upper]
        return [title, *tall, self._floored(lowest)]

    def _floored(self, bar: str) -> Line:
        """The lowest line of the bars, with a floor where there is nothing."""
        return merged((symbol, "faulted") if symbol != " " else (self.glyphs.heights[0], "guide") for symbol in bar)
