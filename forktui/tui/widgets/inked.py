"""Widgets that draw whole lines themselves: no markup, no child widgets, no layout when their content changes."""

from abc import abstractmethod
from itertools import zip_longest
from typing import ClassVar, Final, Self

from rich.segment import Segment
from rich.style import Style
from textual.geometry import Region, Size
from textual.scroll_view import ScrollView
from textual.scrollbar import ScrollBar, ScrollBarRender
from textual.strip import Strip
from textual.widget import Widget

from forktui.text.safe import ascii_text
from forktui.tui.keys_in_order import KeysInOrder
from forktui.tui.theme import Drawn, ink_styles
from forktui.view.glyphs import ASCII, UNICODE, Glyphs
from forktui.view.styled_lines import Line, clipped, differences

DIM: Final = Style(dim=True)


class InkedApp(KeysInOrder):
    """An application that knows what the inks look like in its theme, and which glyphs its terminal has."""

    glyphs: Glyphs = UNICODE
    _inks: tuple[object, dict[Drawn, Style]] = ((), {})

    @property
    def inks(self) -> dict[Drawn, Style]:
        """The style of each ink, without a background but for badges and the cursor."""
        look = (self.theme, self.native_ansi_color)
        if self._inks[0] != look:
            self._inks = (look, ink_styles(self.get_css_variables(), own_colours=self.native_ansi_color))
        return self._inks[1]


def draw_with_others(widget: Widget) -> None:
    """Have what is to be drawn of a widget drawn with the screen's next frame.

    Textual tells the screen by a message of the widget's own, at its next pause: what one key changes in several
    widgets would be drawn in two frames. Of one that nobody sees there is nothing to draw: when it is shown, all is.
    """
    if widget._repaint_required and widget.is_attached:
        screen = widget.screen
        widget._repaint_required = False
        if widget in screen._compositor:
            screen._dirty_widgets.add(widget)
            screen.check_idle()


class Inked(Widget):
    """A widget that draws with inks; its application is an InkedApp."""

    _dimmed = False

    def dim(self, dimmed: bool) -> None:
        """Draw faintly from here on, or no longer: what is shown may be old."""
        if dimmed != self._dimmed:
            self._dimmed = dimmed
            self.refresh()

    @property
    def inks(self) -> dict[Drawn, Style]:
        """The style of each ink in the theme."""
        return self._inked_app.inks

    @property
    def glyphs(self) -> Glyphs:
        """The glyphs of the terminal."""
        return self._inked_app.glyphs

    @property
    def _inked_app(self) -> InkedApp:
        app = self.app
        assert isinstance(app, InkedApp)
        return app

    def refresh(self, *regions: Region, repaint: bool = True, layout: bool = False, recompose: bool = False) -> Self:
        """Draw anew with the screen's next frame."""
        super().refresh(*regions, repaint=repaint, layout=layout, recompose=recompose)
        if not layout:
            draw_with_others(self)
        return self

    def refresh_difference(self, y: int, before: Line, after: Line) -> None:
        """Have those cells of a line of the widget drawn that are different."""
        spans = differences(before, after)
        if spans:
            self.refresh(*(Region(begin, y, end - begin, 1) for begin, end in spans))

    def strip(self, line: Line, width: int, under: Style | None = None) -> Strip:
        """A line as Textual draws it, in exactly `width` cells; `under` is the background of its inks.

        Where `under` reverses, the whole line has one ink: every other would become a background of its own.
        """
        base = self.rich_style if under is None else self.rich_style + under
        segments: list[Segment] = []
        inks, ascii_only = self.inks, self.glyphs is ASCII
        for foreign, ink in line:
            text = ascii_text(foreign) if ascii_only else foreign
            # Leading blanks apart: a screenshot's text elements begin with them otherwise, and librsvg trims those.
            word = text.lstrip(" ")
            style = base if base.reverse else base + inks[ink]
            style = style + DIM if self._dimmed else style
            segments += [Segment(part, style) for part in (text[: len(text) - len(word)], word) if part]
        return Strip(segments).adjust_cell_length(width, base)


class AsciiScrollBar(ScrollBarRender):
    """A scroll bar whose ends are whole cells."""

    VERTICAL_BARS: ClassVar[list[str]] = [" "] * len(ScrollBarRender.VERTICAL_BARS)
    HORIZONTAL_BARS: ClassVar[list[str]] = [" "] * len(ScrollBarRender.HORIZONTAL_BARS)


class InkedScroll(ScrollView, Inked, can_focus=True):
    """A widget that draws the visible ones of its many lines."""

    def watch_show_vertical_scrollbar(self, shown: bool) -> None:
        """Tell a scroll bar that comes where it is: Textual tells only one that is there."""
        if shown:
            self.vertical_scrollbar.position = self.scroll_y

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        self._draw_bar()

    def _draw_bar(self) -> None:
        if self.show_vertical_scrollbar:
            draw_with_others(self.vertical_scrollbar)

    def set_line_count(self, lines: int) -> None:
        """Have so many lines; nothing that is on the screen is drawn anew but a scroll bar that is another."""
        before, size = self.virtual_size, Size(self.size.width, lines)
        if size == before:
            return
        # The reactive itself would lay out the screen and draw all of the widget.
        self.set_reactive(Widget.virtual_size, size)
        if self.show_vertical_scrollbar and self.size.height < min(before.height, lines):
            if self._bar(before.height) == self._bar(lines):
                self.vertical_scrollbar.set_reactive(ScrollBar.window_virtual_size, lines)
            else:
                self.vertical_scrollbar.window_virtual_size = lines
                self._draw_bar()
            self.scroll_y = self.validate_scroll_y(self.scroll_y)
        else:
            self._scroll_update(size)

    def _bar(self, lines: int) -> list[Segment]:
        """What the scroll bar of so many lines looks like."""
        height = self.size.height
        return ScrollBarRender.render_bar(height, lines, height, self.scroll_y).segments


class Painting(Inked):
    """A widget whose content is a function of its size."""

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002
        super().__init__(id=id)
        self._lines: list[Line] = []
        self._painted: Size | None = None

    @abstractmethod
    def paint(self, width: int, height: int) -> list[Line]:
        """The lines to show, at most `height` of `width` cells; more of either is cut."""

    def repaint(self) -> None:
        """Paint again; only lines that are different are drawn, and nothing is laid out."""
        size = self.content_size
        if self._painted != size:
            # Hidden it has no size, and may have the one that it was painted in when it is shown again.
            self._painted = None
            self.refresh()
            return
        before, self._lines = self._lines, self._paint(size)
        nothing: Line = []
        for y, (old, new) in enumerate(zip_longest(before, self._lines, fillvalue=nothing)):
            self.refresh_difference(y, old, new)

    def render_line(self, y: int) -> Strip:
        """One line of the picture, for Textual's compositor."""
        size = self.content_size
        if self._painted != size:
            self._lines = self._paint(size)
            self._painted = size
        return self.strip(self._lines[y] if y < len(self._lines) else [], size.width)

    def _paint(self, size: Size) -> list[Line]:
        return [clipped(line, size.width, self.glyphs.ellipsis) for line in self.paint(size.width, size.height)]
