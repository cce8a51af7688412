"""The last fan-outs in full."""

from collections.abc import Callable
from typing import ClassVar, Final

from textual.binding import Binding, BindingType

from forktui.client.api import SupervisorClient
from forktui.model.bursts import Burst
from forktui.model.world import World
from forktui.text.quantities import ended
from forktui.text.safe import safe_model
from forktui.tui.messages import Asking, Said
from forktui.tui.screens.reading import Reading
from forktui.tui.widgets.lines_view import LinesView
from forktui.view.burst_panes import Chosen, in_full
from forktui.view.styled_lines import Line
from supervisor.models import Operation

LOOK_SECONDS: Final = 0.5
"""Between two looks at one that goes on."""


class FanOuts(Reading):
    """The list of the last fan-outs, and the forks of one of them; `refusal` is why one may not be cancelled."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("b", "dismiss", "Close"),
        Binding("right_square_bracket", "choose(1)", "The fan-out before it", key_display="]"),
        Binding("left_square_bracket", "choose(-1)", "The fan-out after it", key_display="["),
        Binding("o", "order", "As they began, or the slowest first"),
        Binding("X", "cancel", "Cancel it: what is made stays"),
    ]
    KEYS = f"[ ] others  o order  X cancels  {Reading.KEYS}"

    def __init__(self, world: World, refusal: Callable[[str], str | None]) -> None:
        nothing = "No fan-out was seen since this dashboard was opened; F begins one"
        super().__init__("Fan-outs", view=LinesView(follows=False, empty=nothing))
        self._world = world
        self._refusal = refusal
        self._chosen = self._listed[0].id if self._listed else ""
        self._slowest_first = False
        self._lines: list[Line] = []

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(LOOK_SECONDS, self._draw)
        self.call_after_refresh(self._draw)

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def show(self, world: World) -> None:
        """Take in how far they are; it is drawn at the next look."""
        self._world = world

    def action_choose(self, step: int) -> None:
        if self._listed:
            place = min(max(self._place + step, 0), len(self._listed) - 1)
            self._chosen = self._listed[place].id
            self._draw()

    def action_order(self) -> None:
        self._slowest_first = not self._slowest_first
        self._draw()

    def action_cancel(self) -> None:
        burst = self._burst
        if burst is None:
            return
        operation = burst.told.operation
        refusal = self._refusal(operation.instance_id) if burst.running else f"{operation.name}: it has ended"
        if refusal is not None:
            self.post_message(Said(refusal, "warning"))
            return

        async def ask(client: SupervisorClient, world: World) -> Operation:
            return safe_model(await client.cancel(operation.id))

        def tell(cancelled: Operation) -> None:
            self.post_message(Said(ended(cancelled)))

        self.post_message(Asking(self, "cancel", ask, tell, lambda why: self._say_failed(why)))

    def _say_failed(self, why: str) -> None:
        self.post_message(Said(why, "error"))

    @property
    def _listed(self) -> list[Burst]:
        """Those that are known, the newest first."""
        return self._world.bursts.listed[::-1]

    @property
    def _place(self) -> int:
        return next((place for place, one in enumerate(self._listed) if one.id == self._chosen), 0)

    @property
    def _burst(self) -> Burst | None:
        return self._listed[self._place] if self._listed else None

    def _draw(self) -> None:
        if not self._listed or not self.view.is_attached:
            return
        width = max(self.view.scrollable_content_region.width, 1)
        chosen = Chosen(self._listed, self._place, self._slowest_first)
        lines = in_full(chosen, self._world.statistics_at, width, self.view.glyphs)
        if lines != self._lines:
            self._lines = lines
            self.view.replace(lines)
