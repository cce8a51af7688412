"""Whether a terminal's background is light: what the environment says of it, and what the terminal answers. Pure."""

import re
from collections.abc import Mapping
from typing import Final

QUESTION: Final = "\x1b]11;?\x1b\\\x1b[c"
"""OSC 11, which many terminals answer, and DA1, which all do, behind it: xterm's ctlseqs."""

_LIGHT_NUMBERS: Final = frozenset(map(str, (7, *range(9, 16))))
"""The bright ones of the 16 colours."""
_COLOUR: Final = re.compile(r"rgba?:([0-9a-f]{1,4})/([0-9a-f]{1,4})/([0-9a-f]{1,4})(?:/[0-9a-f]{1,4})?", re.IGNORECASE)
_ANSWER: Final = re.compile(r"\x1b\]11;(?P<colour>[^\x07\x1b]{0,64})(?:\x07|\x1b\\)|\x1b\[\?[\d;]{0,64}c")
_BEGUN: Final = re.compile(r"\x1b(?:\]11;[^\x07\x1b]{0,64}\x1b?|\[\?[\d;]{0,64})\Z")
"""What no key begins with: an answer of which the rest is on its way."""
_PERHAPS_BEGUN: Final = re.compile(r"\x1b(?:\]1{0,2}|\[)?\Z")
"""What may be the Escape key, or one with Alt."""


def light_by_environment(environment: Mapping[str, str]) -> bool | None:
    """Whether COLORFGBG, which rxvt, Konsole and others set, says that the background is light; None without a word."""
    last = environment.get("COLORFGBG", "").rpartition(";")[2]
    return last in _LIGHT_NUMBERS if last.isascii() and last.isdigit() and len(last) < 3 else None


def can_be_asked(environment: Mapping[str, str]) -> bool:
    """Whether there is something to learn: the kernel's console has a black background, and says nothing of it."""
    return environment.get("TERM", "") != "linux" and "NO_COLOR" not in environment


def is_light(colour: str) -> bool | None:
    """Whether a colour as X writes it (`rgb:ffff/ffff/ffff`) is light; None where it is none."""
    found = _COLOUR.fullmatch(colour)
    if found is None:
        return None
    red, green, blue = (int(part, 16) / int("f" * len(part), 16) for part in found.groups())
    # The weights of ITU-R BT.709.
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.5


class Answers:
    """Takes the terminal's answers out of what it sends, however late and in whatever pieces they come; leaves keys."""

    def __init__(self) -> None:
        self.light: bool | None = None
        """What the last answer says."""
        self._asked = False
        self._all_said = False
        self._held = ""

    def ask(self) -> str:
        """Return what is to be written, and expect answers from now on."""
        self._asked, self._all_said = True, False
        return QUESTION

    def take(self, text: str) -> str:
        """Return what the keyboard has sent. What may be the beginning of an answer is held back."""
        if not self._asked:
            return text
        text, self._held = self._held + text, ""
        left = _ANSWER.sub(self._answered, text)
        # Behind the second answer a first one is still taken out, but the Escape key is not held back for it.
        begun = _BEGUN.search(left) or (None if self._all_said else _PERHAPS_BEGUN.search(left))
        if begun is not None:
            left, self._held = left[: begun.start()], left[begun.start() :]
        return left

    def release(self) -> str:
        """Return what was held back and is a key after all, since nothing has followed it."""
        if not _PERHAPS_BEGUN.fullmatch(self._held):
            return ""
        held, self._held = self._held, ""
        return held

    def _answered(self, answer: re.Match[str]) -> str:
        colour = answer["colour"]
        if colour is None:
            self._all_said = True
        else:
            self.light = is_light(colour)
        return ""
