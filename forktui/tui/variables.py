"""The environment variables that Textual reads: what each may be, since it drops a wrong one or fails at it. Pure."""

from collections.abc import Mapping
from typing import Final

from supervisor.models import quoted

DRIVER: Final = "TEXTUAL_DRIVER"
THEME: Final = "TEXTUAL_THEME"
LOG: Final = "TEXTUAL_LOG"
_UNBOUNDED: Final = 10**9
_NUMBERS: Final[Mapping[str, tuple[int, int]]] = {
    "TEXTUAL_FPS": (1, 1000),
    "TEXTUAL_SCREENSHOT": (-1, _UNBOUNDED),
    "TEXTUAL_SLOW_THRESHOLD": (100, _UNBOUNDED),
    "TEXTUAL_SMOOTH_SCROLL": (0, 1),
    "TEXTUAL_DIM_FACTOR": (0, 100),
    "TEXTUAL_DEVTOOLS_PORT": (0, 65535),
    "ESCDELAY": (1, 60_000),
}
_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "TEXTUAL_ANIMATIONS": ("none", "basic", "full"),
    "TEXTUAL_FILTERS": ("dim",),
    "TEXTUAL_COLOR_SYSTEM": ("auto", "standard", "256", "truecolor"),
}


def wrong_variable(environment: Mapping[str, str]) -> str | None:
    """Why a variable cannot be what it is, in one line; None where all can."""
    for name, (least, most) in _NUMBERS.items():
        given = environment.get(name)
        if given is not None and not _within(given, least, most):
            bound = f"from {least} on" if most == _UNBOUNDED else f"from {least} to {most}"
            return refused(name, given, f"it takes a whole number {bound}")
    for name, words in _WORDS.items():
        given = environment.get(name)
        if given is not None and given not in words:
            return refused(name, given, f"it takes {' or '.join(filter(None, (', '.join(words[:-1]), words[-1])))}")
    return None


def refused(name: str, given: str, reason: str) -> str:
    """Return the line that refuses a variable."""
    return f"{name}: {quoted(given)} is refused: {reason}; set another, or unset it"


def _within(given: str, least: int, most: int) -> bool:
    # As int() reads them, but for the digits of other scripts and the lengths that it refuses.
    digits = given.removeprefix("-")
    return digits.isascii() and digits.isdecimal() and len(digits) <= 10 and least <= int(given) <= most
