"""What is typed into a console: as it is, but for a `~` at the beginning of a line, as of ssh. Pure."""

from enum import Enum, auto
from typing import Final, NamedTuple

ESCAPE: Final = b"~"
_ENDS: Final = b"\r\n"


class Asked(Enum):
    """What is asked of the client, and not typed."""

    LEAVE = auto()
    SIZE = auto()
    HELP = auto()


_ASKED: Final = {b".": Asked.LEAVE, b"s": Asked.SIZE, b"?": Asked.HELP}

HELP: Final = """\
~.   leave the console; the guest goes on
~s   type `stty rows ROWS cols COLUMNS`, with this terminal's size
~~   type one ~
~?   this"""


class Typed(NamedTuple):
    """A piece of what is typed, to be sent, and then what is asked."""

    data: bytes
    asked: Asked | None = None


class TypedKeys:
    """The keys of one console, in order."""

    def __init__(self) -> None:
        self._at_begin = True
        self._escaped = False

    def feed(self, data: bytes) -> list[Typed]:
        """Return what is to be sent and what is asked, in order."""
        found, plain = list[Typed](), bytearray()
        for number in data:
            key = bytes((number,))
            if self._escaped:
                self._escaped = False
                asked = _ASKED.get(key)
                if asked is not None:
                    found.append(Typed(bytes(plain), asked))
                    plain.clear()
                    continue
                plain += ESCAPE if key == ESCAPE else ESCAPE + key
            elif key == ESCAPE and self._at_begin:
                self._escaped = True
                continue
            else:
                plain += key
            self._at_begin = key in _ENDS
        return [*found, Typed(bytes(plain))] if plain else found
