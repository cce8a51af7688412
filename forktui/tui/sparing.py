"""Few bytes to the terminal: of a line only the cells that are to be drawn anew, and none of those forgotten.

Textual's own update begins at the left edge of the widget that has the cells, and gives each piece of text its style
again: `ChopsUpdate.render_segments` of textual/_compositor.py.
"""

from typing import Any

from rich.console import Console
from rich.control import Control
from textual._compositor import ChopsUpdate, Compositor, CompositorMap


class SparingCompositor(Compositor):
    """Composes a screen as Textual does, and draws less."""

    @property
    def full_map(self) -> CompositorMap:
        """Where each widget is. What that changes of what was known is to be drawn anew.

        Textual looks for it between two layouts where a widget came that nobody sees, and forgets that: the next layout
        finds no difference, and a toast that has gone stays on the screen.
        """
        before = self._full_map
        after = super().full_map
        if after is not before:
            places = (place.clip.intersection(place.region) for _, place in after.items() ^ before.items())
            self._dirty_regions.update(filter(None, places))
        return after

    def render_partial_update(self) -> ChopsUpdate | None:
        update = super().render_partial_update()
        return None if update is None else SparingUpdate(update.chops, update.spans, update.chop_ends)


class Sparing:
    """A screen, together with one of Textual's, that forgets nothing of what is to be drawn and sends nothing else."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._compositor: Compositor = SparingCompositor()


class SparingUpdate(ChopsUpdate):
    """Spans of lines: the line, and from which cell to which."""

    def render_segments(self, console: Console) -> str:
        drawn: list[str] = []
        for y, begin, end in self.spans:
            for edge, (x, strip) in zip(self.chop_ends[y], self.chops[y].items(), strict=False):
                left, right = max(x, begin), min(edge, end)
                if strip is not None and left < right:
                    cells = strip.crop(left - x, right - x).simplify()
                    drawn += [Control.move_to(left, y).segment.text, cells.render(console)]
        return "".join(drawn)
