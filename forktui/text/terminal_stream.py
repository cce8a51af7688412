"""What a guest prints, for the terminal of who types into it: it may move the cursor and colour, and no more. Pure.

A terminal also obeys sequences that set its title or its clipboard, that have it answer, as if somebody had typed, or
print, or move its window: none of these pass. ECMA-48 has the grammar, xterm's ctlseqs.txt what each does.
"""

import codecs
import re
from typing import Final

MOST_OF_A_SEQUENCE: Final = 64
"""Characters; a longer one is none that passes."""

_CONTROLS: Final = frozenset("\a\b\t\n\r")
_FINALS: Final = frozenset("@ABCDEFGHJKLMPSTXadefgmrsu`")
"""Of control sequences that move the cursor, erase, scroll, insert, delete, and set colours, margins and tabs."""
_MODES: Final = frozenset(("4", "?1", "?7", "?25", "?47", "?1047", "?1048", "?1049", "?2004"))
"""Which may be set and reset: insertion, cursor keys, wrapping, the cursor, the other screen, bracketed paste."""
_ESCAPES: Final = frozenset("78DEHM=>")
"""Behind an escape alone: the cursor kept and restored, lines, a tab, the keypad."""
_STRINGS: Final = frozenset("]P_^X")
"""What begins a string of which nothing passes, until it is terminated: OSC, DCS, APC, PM, SOS."""
_CHARACTER_SETS: Final = re.compile(r"[()][AB0]")
_PARAMETERS: Final = re.compile(r"[0-9;:]*")

RESET: Final = "\x1b[!p\x1b[?1049l\x1b[?2004l\x1b[?25h\x1b[0m\x1b(B"
"""Undoes all that may have been set: DECSTR, and what it leaves."""


class TerminalStream:
    """The bytes of one console, piece by piece."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._sequence = ""
        """The beginning of a sequence, from its escape on."""
        self._in_string = False

    def feed(self, data: bytes) -> str:
        """Return what of the next bytes a terminal may be given; a sequence comes when it is whole."""
        return "".join(map(self._take, self._decoder.decode(data)))

    def _take(self, character: str) -> str:
        if self._in_string:
            return self._in_the_string(character)
        if self._sequence:
            return self._in_the_sequence(character)
        if character == "\x1b":
            self._sequence = character
            return ""
        if character < " " or "\x7f" <= character <= "\x9f":
            return character if character in _CONTROLS else ""
        return character

    def _in_the_string(self, character: str) -> str:
        # BEL ends it, or ESC and a backslash.
        ended = character == "\a" or (self._sequence == "\x1b" and character == "\\")
        self._sequence = "\x1b" if character == "\x1b" else ""
        if ended:
            self._in_string = False
        return ""

    def _in_the_sequence(self, character: str) -> str:
        if character in "\x18\x1a":  # cancelled
            self._sequence = ""
            return ""
        if character == "\x1b":
            self._sequence = character
            return ""
        if character < " ":
            # Obeyed in the midst of a sequence.
            return character if character in _CONTROLS else ""
        sequence = self._sequence + character
        if sequence[1] in _STRINGS:
            self._sequence, self._in_string = "", True
            return ""
        if not _is_whole(sequence):
            # What is too long is swallowed up to its end.
            self._sequence = sequence if len(sequence) < MOST_OF_A_SEQUENCE else sequence[:MOST_OF_A_SEQUENCE]
            return ""
        self._sequence = ""
        return sequence if _may_pass(sequence) else ""


def _is_whole(sequence: str) -> bool:
    last = sequence[-1]
    if sequence[1] == "[":
        return len(sequence) > 2 and "@" <= last <= "~"
    # Intermediate characters, and then a final one.
    return not " " <= last <= "/"


def _may_pass(sequence: str) -> bool:
    if len(sequence) >= MOST_OF_A_SEQUENCE:
        return False
    if sequence[1] != "[":
        return sequence[1:] in _ESCAPES or _CHARACTER_SETS.fullmatch(sequence[1:]) is not None
    parameters, final = sequence[2:-1], sequence[-1]
    if final in "hl":
        modes = parameters.removeprefix("?").split(";")
        prefix = "?" if parameters.startswith("?") else ""
        return all(f"{prefix}{mode}" in _MODES for mode in modes)
    return final in _FINALS and _PARAMETERS.fullmatch(parameters) is not None
