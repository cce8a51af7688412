"""The details of one instance in full, as they are while they are read."""

from collections.abc import Callable
from typing import ClassVar, Final, NamedTuple

from textual.binding import Binding, BindingType

from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.model.family import Family
from forktui.model.world import World
from forktui.text.safe import safe_model
from forktui.tui.messages import Asking
from forktui.tui.screens.reading import Reading
from forktui.tui.widgets.lines_view import LinesView
from forktui.view.facts import in_full, title
from forktui.view.page_heat import has_page_map
from forktui.view.panels import in_sections
from forktui.view.styled_lines import Line
from forktui.view.subject import Subject
from supervisor.models import Instance, MachineInfo, PageMapFold

LOOK_SECONDS: Final = 1.0
"""Between two looks: also a listing of thousands of forks costs little then."""
HEAT_ROWS: Final = 16
"""Of the page map."""


class _Known(NamedTuple):
    """What had to be asked for."""

    machine: MachineInfo | None = None
    fold: PageMapFold | None = None


class Inspection(Reading):
    """Everything that is known of one instance, until it is closed, and after its deletion what was known last.

    `family` has an instance's family at the moment, and `now` is the supervisor's clock.
    """

    BINDINGS: ClassVar[list[BindingType]] = [Binding("i,I", "dismiss", "Close")]

    def __init__(
        self, world: World, instance: Instance, family: Callable[[str], Family], now: Callable[[], float]
    ) -> None:
        super().__init__(instance.name, view=LinesView(follows=False))
        self._world = world
        self._instance = instance
        self._family = family
        self._now = now
        self._known = _Known()
        self._asking = False
        self._lines: list[Line] = []

    def on_mount(self) -> None:
        super().on_mount()
        self.set_interval(LOOK_SECONDS, self._look)
        self.call_after_refresh(self._look)

    def on_resize(self) -> None:
        self.call_after_refresh(self._draw)

    def show(self, world: World) -> None:
        """Take in what the instance has become; it is drawn at the next look."""
        self._world = world

    def _look(self) -> None:
        """Draw what is known, and ask for what only the supervisor knows."""
        instance = self._world.instances.get(self._instance.id)
        if instance is None:
            self._heading.say([(self._instance.name, "strong"), ("  deleted", "stopped")])
            return
        self._instance = instance
        self._draw()
        # Only once the one before is answered: of two questions the newer one alone would be.
        if not self._asking:
            self._asking = True
            self.post_message(Asking(self, "details", self._ask, self._learn, self._unknown))

    async def _ask(self, client: SupervisorClient, world: World) -> _Known:
        instance = self._instance
        machine = safe_model(await client.machine(instance.id))
        fold = None
        if has_page_map(instance):
            try:
                fold = await client.memory(instance.id, self._width * HEAT_ROWS)
            except (ApiError, SupervisorUnreachableError):
                # Its VMM may have gone meanwhile, with its page map.
                fold = None
        return _Known(machine, fold)

    def _learn(self, known: _Known) -> None:
        self._known, self._asking = known, False
        self._draw()

    def _unknown(self, refusal: str) -> None:
        """Keep what is known: why there is no more of it is told by what stands for the connection."""
        self._asking = False

    def _draw(self) -> None:
        if self._instance.id not in self._world.instances or not self.view.is_attached:
            return
        subject = Subject(
            self._world,
            self._instance,
            self._family(self._instance.id),
            self.view.glyphs,
            self._now(),
            self._known.fold,
            self._known.machine,
        )
        self._heading.say(title(subject))
        lines = in_sections(in_full(subject, self._width), self._width)
        if lines != self._lines:
            self._lines = lines
            self.view.replace(lines)

    @property
    def _width(self) -> int:
        """The cells of a line."""
        return max(self.view.scrollable_content_region.width, 1)
