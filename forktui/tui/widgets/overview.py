"""The column beside everything else, where a terminal has room for it: the host, and what matters most on it."""

from forktui.model.trees import Tree, trees
from forktui.model.world import World
from forktui.tui.widgets.inked import Painting
from forktui.view.overview import FAULT_SECONDS, overview
from forktui.view.styled_lines import Line


class Overview(Painting):
    """What a host's trees cost it, once a second at most: their sums are over all instances."""

    def __init__(self) -> None:
        super().__init__(id="overview")
        self.world = World()
        """What is drawn."""
        self._trees: list[Tree] = []

    def show(self, world: World, now: float) -> None:
        """Draw the trees of a world at a moment of the supervisor's clock; nothing where there is no room for it."""
        if not self.display or not self.content_size.width:
            return
        self.world, self._trees = world, trees(world, now, FAULT_SECONDS)
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        return overview(self.world, self._trees, width, height, self.glyphs)
