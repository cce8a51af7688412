"""The panes about the selected instance: its facts, its start, its faults per second."""

from forktui.model.forest import descendants
from forktui.model.world import World, fault_rates
from forktui.text.quantities import milliseconds, plural, rate
from forktui.tui.widgets.inked import Painting
from forktui.view.facts import facts, waterfall
from forktui.view.sparkline import bars
from forktui.view.styled_lines import Line, merged
from supervisor.models import Instance

SAMPLE_SECONDS = 0.5


class Facts(Painting):
    """What there is to say of one instance, and the waterfall of its phases below."""

    def __init__(self) -> None:
        super().__init__(id="facts")
        self._world = World()
        self._instance: Instance | None = None

    def show(self, world: World, instance: Instance | None) -> None:
        """Draw the facts of an instance of `world`."""
        self._world, self._instance = world, instance
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        if self._instance is None:
            return [[("Nothing is selected", "muted")]]
        lines = facts(self._world, self._instance, self.glyphs)
        phases = waterfall(self._instance.phases, width, self.glyphs)
        if phases and len(lines) + len(phases) + 1 <= height:
            whole = milliseconds(sum(phase.milliseconds for phase in self._instance.phases))
            lines += [[("start", "title"), (f"  {whole}", "plain")], *phases]
        return lines


class FaultRate(Painting):
    """Faults per second of one instance, or of all its forks where it has no VMM itself."""

    def __init__(self) -> None:
        super().__init__(id="fault-rate")
        self._world = World()
        self._instance: Instance | None = None
        self._now = 0.0

    def show(self, world: World, instance: Instance | None, now: float) -> None:
        """Draw the minute or so before `now`, in seconds of the supervisor's clock."""
        self._world, self._instance, self._now = world, instance, now
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        if self._instance is None or height < 2:
            return []
        ids, whose = [self._instance.id], "faults/s"
        below = descendants(self._world, self._instance.id) if self._instance.vmm_pid is None else []
        if below:
            ids, whose = below, f"faults/s of {plural(len(below), 'fork')}"
        history = [sample for i in ids for sample in self._world.fault_history.get(i, ())]
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
