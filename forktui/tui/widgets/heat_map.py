"""The page map of the selected instance as a heat map."""

from forktui.text.quantities import plural, size
from forktui.tui.widgets.inked import Painting
from forktui.view.page_heat import heat_lines, legend
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
        per_cell = self._fold.pages / max(len(self._fold.cells), 1)
        title.append((f"  {plural(self._fold.pages, 'page')} of {size(self._fold.page_size)}", "plain"))
        title.append((f"  {per_cell:.0f} a cell" if per_cell >= 1 else "", "muted"))
        lines = heat_lines(self._fold, width, self.glyphs)[: height - _FRAME_LINES]
        return [title, *lines, legend(self._fold, width, self.glyphs)]


def has_page_map(instance: Instance) -> bool:
    """Whether a page server answers for the instance's memory."""
    return instance.vmm_pid is not None and instance.memory_backend == "uffd"


def no_page_map(instance: Instance) -> str:
    """Why an instance has no page map, or that it is on its way."""
    if instance.vmm_pid is None:
        return f"{instance.state}: no VMM, so no pages; move to a running fork"
    if instance.memory_backend == "file":
        return "file backend: the kernel answers the faults and counts no pages"
    if instance.memory_backend is None and any(phase.name == "load" for phase in instance.phases):
        return "detached: it needs its source no more, and nobody counts its pages"
    if instance.memory_backend is None:
        return "booted cold: its memory comes from no snapshot"
    return "being read"
