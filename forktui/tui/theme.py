"""The two themes, the colours that every other theme lacks, and how each ink looks in a theme."""

from collections.abc import Mapping
from typing import Literal

from rich.style import Style
from textual.color import Color
from textual.theme import BUILTIN_THEMES, Theme

from forktui.view.styled_lines import Ink

DARK = Theme(
    name="forktui-dark",
    primary="#6cb6ff",
    secondary="#768390",
    accent="#d2a8ff",
    success="#6bc46d",
    warning="#e0b94f",
    error="#ff7b72",
    foreground="#cdd9e5",
    background="#0f141b",
    surface="#151b24",
    panel="#1c2430",
    dark=True,
    variables={
        "ink-muted": "#7d8a99",
        "ink-guide": "#3d4856",
        "ink-cursor": "#22344d",
        "ink-faulted": "#ff9e57",
        "ink-around": "#e0c15c",
        "ink-prefetched": "#4cc9c0",
        "ink-zero": "#8b7fd6",
        "ink-on-badge": "#0f141b",
        "border-blurred": "#2b3543",
        "scrollbar": "#2b3543",
        "scrollbar-hover": "#3d4856",
        "scrollbar-active": "#6cb6ff",
        "scrollbar-background": "#0f141b",
        "scrollbar-background-hover": "#0f141b",
        "scrollbar-background-active": "#0f141b",
    },
)

LIGHT = Theme(
    name="forktui-light",
    primary="#0b62c4",
    secondary="#636e7b",
    accent="#7a3fc4",
    success="#1f7a36",
    warning="#8f6200",
    error="#c22c24",
    foreground="#1f2730",
    background="#fbfcfd",
    surface="#f2f5f8",
    panel="#e6ebf1",
    dark=False,
    variables={
        "ink-muted": "#68737f",
        "ink-guide": "#b9c3ce",
        "ink-cursor": "#d5e5f9",
        "ink-faulted": "#c75100",
        "ink-around": "#a17b00",
        "ink-prefetched": "#0c857d",
        "ink-zero": "#6253c2",
        "ink-on-badge": "#ffffff",
        "border-blurred": "#c6d0da",
    },
)

THEMES = (DARK, LIGHT)


def theme_names() -> list[str]:
    """The names of all themes, Textual's own among them."""
    return sorted({*BUILTIN_THEMES, *(theme.name for theme in THEMES)})


Drawn = Ink | Literal["cursor", "cursor left"]
"""What is drawn: inks, the cursor, and the cursor of a pane that has not the focus."""

_COLOURS: dict[Ink, str] = {
    "plain": "foreground",
    "muted": "ink-muted",
    "strong": "foreground",
    "guide": "ink-guide",
    "title": "ink-muted",
    "running": "success",
    "waiting": "warning",
    "standby": "primary",
    "stopped": "ink-muted",
    "broken": "error",
    "warning": "warning",
    "mark": "accent",
    "absent": "ink-guide",
    "faulted": "ink-faulted",
    "around": "ink-around",
    "prefetched": "ink-prefetched",
    "zero": "ink-zero",
    "key": "primary",
    "notice": "accent",
    "found": "warning",
}
_BADGES: dict[Ink, str] = {"locked": "primary", "recording": "accent", "alarm": "error", "found here": "warning"}
_BOLD: frozenset[Drawn] = frozenset(
    {"strong", "title", "broken", "mark", "key", "locked", "recording", "alarm", "found here"}
)
_UNDERLINED: frozenset[Drawn] = frozenset({"found"})
_DIM: frozenset[Drawn] = frozenset({"guide", "absent"})

_ANSI_INKS = {
    "ink-muted": "ansi_bright_black",
    "ink-guide": "ansi_bright_black",
    "ink-cursor": "ansi_default",
    "ink-faulted": "ansi_red",
    "ink-around": "ansi_yellow",
    "ink-prefetched": "ansi_cyan",
    "ink-zero": "ansi_magenta",
    "ink-on-badge": "ansi_black",
}


def ink_defaults(theme: Theme) -> dict[str, str]:
    """The `$ink-*` variables for a theme that does not define them: Textual's own ones."""
    if theme.ansi:
        return _ANSI_INKS
    colours = theme.to_color_system()
    variables = colours.generate()
    foreground, background = Color.parse(variables["foreground"]), Color.parse(variables["background"])
    primary = Color.parse(variables["primary"])
    return {
        "ink-muted": foreground.blend(background, 0.45).hex,
        "ink-guide": foreground.blend(background, 0.7).hex,
        "ink-cursor": background.blend(primary, 0.25).hex,
        "ink-faulted": variables["error"],
        "ink-around": variables["warning"],
        "ink-prefetched": variables["success"],
        "ink-zero": variables["accent"],
        "ink-on-badge": variables["background"],
    }


def ink_styles(variables: Mapping[str, str], *, own_colours: bool) -> dict[Drawn, Style]:
    """How each ink looks with a theme's CSS variables.

    With `own_colours` the terminal's own colours, or none, are drawn: nothing is known of them, so what is told by a
    background is reversed and what is told by a faint colour is dim.
    """

    def colour(variable: str) -> Style:
        return Style.from_color(Color.parse(variables[variable]).rich_color)

    def badge(variable: str) -> Style:
        if own_colours:
            return colour(variable) + Style(reverse=True)
        on_badge, background = Color.parse(variables["ink-on-badge"]), Color.parse(variables[variable])
        return Style.from_color(on_badge.rich_color, background.rich_color)

    styles: dict[Drawn, Style] = {ink: colour(variable) for ink, variable in _COLOURS.items()}
    styles |= {ink: badge(variable) for ink, variable in _BADGES.items()}
    styles["cursor"] = (
        Style(reverse=True) if own_colours else Style(bgcolor=Color.parse(variables["ink-cursor"]).rich_color)
    )
    styles["cursor left"] = Style(underline=True)
    for ink in styles:
        styles[ink] += Style(
            bold=ink in _BOLD or None, dim=(own_colours and ink in _DIM) or None, underline=ink in _UNDERLINED or None
        )
    return styles
