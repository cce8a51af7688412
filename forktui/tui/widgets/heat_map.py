"""The page map of the selected instance as a heat map."""

from forktui.tui.widgets.inked import Painting
from forktui.view.page_heat import has_page_map, heat_lines, heat_title, legend, no_page_map
from forktui.view.styled_lines import Line
from supervisor.models import Instance, PageMapFold

_FRAME_LINES = 2
"""The title above and the legend below."""


class HeatMap(Painting):
    """One character a cell of guest memory, in address order."""

    def __init__(self) -> None:
        super().__init__(id="heat-map")
        self._instance: Instance | None = None
        self._fold: PageMapFold | None = None
        self._refusal = ""

    @property
    def cells(self) -> int:
        """How many cells there is room for; 0 while the widget is hidden."""
        shown = self.content_size
        return max(shown.width * (shown.height - _FRAME_LINES), 0) if self.is_on_screen else 0

    def select(self, instance: Instance | None) -> None:
        """Show another instance, whose page map is not known yet."""
        if instance is None or self._instance is None or instance.id != self._instance.id or not has_page_map(instance):
            self._fold, self._refusal = None, ""
        self._instance = instance
        self.repaint()

    def show(self, fold: PageMapFold) -> None:
        """Draw a page map, where it is still the selected instance's."""
        if self._instance is not None and fold.id == self._instance.id:
            self._fold, self._refusal = fold, ""
            self.repaint()

    def refuse(self, instance_id: str, reason: str) -> None:
        """Say why there is no page map."""
        if self._instance is not None and instance_id == self._instance.id:
            self._fold, self._refusal = None, reason
            self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        title: Line = [("page map", "title")]
        if self._instance is None:
            return [title]
        if self._fold is None:
            return [title, [(self._refusal or no_page_map(self._instance), "muted")]]
        lines = heat_lines(self._fold, width, self.glyphs)[: height - _FRAME_LINES]
        return [heat_title(self._fold, width), *lines, legend(self._fold, width, self.glyphs)]
