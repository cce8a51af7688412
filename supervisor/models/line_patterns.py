"""Regular expressions for what a guest prints, found in time that grows with the text alone. Pure.

Not by `re`, which tries one way after the other: a pattern such as `(a+)+b` takes it for ever, with the interpreter's
lock held. Here all ways are followed at once (Thompson 1968), and steps that were taken are remembered.
"""

import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple

LONGEST_PATTERN: Final = 200
"""Characters."""
DEEPEST: Final = 20
"""Levels of parentheses."""
MOST_STEPS: Final = 4096
"""That are remembered of one pattern, and no more than lead to MOST_PLACES places in all: some megabytes."""
MOST_PLACES: Final = 1 << 16

_ANY: Final = frozenset(range(256)) - {ord("\n")}
_DIGITS: Final = frozenset(string.digits.encode())
_WORD: Final = frozenset(f"{string.ascii_letters}{string.digits}_".encode())
_BLANK: Final = frozenset(b" \t\r\f\v")
_NAMED: Final = {
    "d": _DIGITS, "D": _ANY - _DIGITS, "w": _WORD, "W": _ANY - _WORD, "s": _BLANK, "S": _ANY - _BLANK,
    "t": frozenset(b"\t"),
}  # fmt: skip


class _Set(NamedTuple):
    """One of these bytes."""

    values: frozenset[int]


class _Split(NamedTuple):
    """On at both places."""

    first: int
    second: int


class _Begin(NamedTuple):
    """On where a line begins."""


class _End(NamedTuple):
    """On where a line ends."""


class _Found(NamedTuple):
    """All of it is there."""


_Instruction = _Set | _Split | _Begin | _End | _Found


class LinePattern:
    """A regular expression of bytes: literals, `.`, `[...]`, `\\d \\w \\s`, `^ $`, `* + ?`, `|` and parentheses.

    Raises ValueError, which says what it does not take.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        if not 0 < len(text) <= LONGEST_PATTERN:
            raise ValueError(f"a pattern has 1 to {LONGEST_PATTERN} characters")
        self._program = [*_Parser(text).parsed(), _Found()]
        self._steps: dict[tuple[frozenset[int], int], frozenset[int]] = {}
        self._kept = 0
        """Places that the remembered steps lead to."""
        self.at_begin = self._reached({0}, begin=True)
        """The places to go on from where a line begins."""
        self.within = self._reached({0})
        """Those of anywhere else in a line."""
        if self.is_found(self.ended(self.at_begin)):
            raise ValueError("the pattern is found in an empty line")

    @property
    def is_plain(self) -> bool:
        """Whether it is words alone, which are found as fast as they are read."""
        return all(isinstance(one, _Set) and len(one.values) == 1 for one in self._program[:-1])

    def after(self, places: frozenset[int], byte: int) -> frozenset[int]:
        """Return the places to go on from after one more byte of a line."""
        key = places, byte
        known = self._steps.get(key)
        if known is None:
            if len(self._steps) >= MOST_STEPS or self._kept >= MOST_PLACES:
                self._steps.clear()
                self._kept = 0
            moved = {at + 1 for at in places if isinstance(one := self._program[at], _Set) and byte in one.values}
            known = self._steps[key] = self._reached(moved) | self.within
            self._kept += len(known)
        return known

    def ended(self, places: frozenset[int]) -> frozenset[int]:
        """Return the places that the end of a line leads to."""
        return self._reached(places, end=True)

    def is_found(self, places: frozenset[int]) -> bool:
        """Return whether one of the places is the end of the pattern."""
        return len(self._program) - 1 in places

    def _reached(self, places: Iterable[int], *, begin: bool = False, end: bool = False) -> frozenset[int]:
        reached: set[int] = set()
        left = [*places]
        while left:
            at = left.pop()
            if at in reached:
                continue
            reached.add(at)
            one = self._program[at]
            if isinstance(one, _Split):
                left += one
            elif (isinstance(one, _Begin) and begin) or (isinstance(one, _End) and end):
                left.append(at + 1)
        return frozenset(reached)


@dataclass
class LineSearch:
    """A search in a text that comes in pieces; a line need not be finished for what is in it to be found."""

    pattern: LinePattern
    found: bool = False
    _places: frozenset[int] = field(init=False)

    def __post_init__(self) -> None:
        self._places = self.pattern.at_begin

    def feed(self, data: bytes) -> bool:
        """Return whether it is found by now; carriage returns are passed over."""
        pattern, places = self.pattern, self._places
        for byte in b"" if self.found else data.replace(b"\r", b""):
            if byte == ord("\n"):
                self.found = pattern.is_found(pattern.ended(places))
                places = pattern.at_begin
            else:
                places = pattern.after(places, byte)
                self.found = pattern.is_found(places)
            if self.found:
                break
        self._places = places
        return self.found

    def skip(self) -> None:
        """Go on in the midst of a line, after some of the text that was not seen."""
        self._places = self.pattern.within


class _Parser:
    """Makes instructions of a pattern; places in them are relative to where they begin until they are joined."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def parsed(self) -> list[_Instruction]:
        program = self._either()
        if self._at < len(self._text):
            raise ValueError("there is a ) without its (; write \\) for one on the console")
        return program

    def _next(self) -> str:
        return self._text[self._at : self._at + 1]

    def _taken(self, word: str) -> bool:
        there = self._text.startswith(word, self._at)
        self._at += len(word) if there else 0
        return there

    def _either(self) -> list[_Instruction]:
        program = self._sequence()
        while self._taken("|"):
            other = self._sequence()
            second = len(program) + 2
            # A split with one way is a jump.
            past = _Split(second + len(other), second + len(other))
            program = [_Split(1, second), *_moved(program, 1), past, *_moved(other, second)]
        return program

    def _sequence(self) -> list[_Instruction]:
        program: list[_Instruction] = []
        while self._next() and self._next() not in "|)":
            program += _moved(self._repeated(), len(program))
        return program

    def _repeated(self) -> list[_Instruction]:
        one = self._atom()
        many = self._next()
        if not many or many not in "*+?{":
            return one
        if many == "{":
            raise ValueError("{ } is not taken: write what is to be repeated as often, or \\{ for one on the console")
        self._at += 1
        if (again := self._next()) and again in "*+?":
            raise ValueError(f"{many}{again} is not taken: one of * + ? says how often")
        length = len(one)
        if many == "+":
            return [*one, _Split(0, length + 1)]
        back = [_Split(0, 0)] if many == "*" else []
        return [_Split(1, length + 1 + len(back)), *_moved(one, 1), *back]

    def _atom(self) -> list[_Instruction]:
        letter = self._next()
        self._at += 1
        match letter:
            case "(":
                return self._group()
            case "[":
                return [_Set(self._class())]
            case ".":
                return [_Set(_ANY)]
            case "^":
                return [_Begin()]
            case "$":
                return [_End()]
            case "*" | "+" | "?":
                raise ValueError(f"there is nothing before {letter} to be repeated; write \\{letter} for itself")
            case "\\":
                return [_Set(self._escaped())]
        return [_Set(frozenset({byte})) for byte in letter.encode()]

    def _group(self) -> list[_Instruction]:
        self._depth += 1
        if self._depth > DEEPEST:
            raise ValueError(f"it has more than {DEEPEST} levels of parentheses")
        if not self._taken("?:") and self._next() == "?":
            raise ValueError("(? is not taken; parentheses group, and do nothing else")
        program = self._either()
        if not self._taken(")"):
            raise ValueError("there is a ( without its ); write \\( for one on the console")
        self._depth -= 1
        return program

    def _escaped(self) -> frozenset[int]:
        letter = self._next()
        self._at += 1
        if letter in _NAMED and letter:
            return _NAMED[letter]
        if not letter or letter.isalnum() or not letter.isascii():
            raise ValueError(f"\\{letter} is not taken; there are \\d \\D \\w \\W \\s \\S \\t")
        return frozenset(letter.encode())

    def _class(self) -> frozenset[int]:
        others, found, first = self._taken("^"), frozenset[int](), True
        while first or self._next() != "]":
            first = False
            low = self._member()
            if len(low) == 1 and self._next() == "-" and self._text[self._at + 1 : self._at + 2] not in ("]", ""):
                self._at += 1
                high = self._member()
                if len(high) != 1 or min(high) < min(low):
                    raise ValueError("a range in [ ] goes from one letter to a later one")
                low = frozenset(range(min(low), min(high) + 1))
            found |= low
        self._at += 1
        return _ANY - found if others else found

    def _member(self) -> frozenset[int]:
        letter = self._next()
        self._at += 1
        if not letter:
            raise ValueError("there is a [ without its ]; write \\[ for one on the console")
        if letter == "\\":
            return self._escaped()
        if not letter.isascii():
            raise ValueError(f"{letter} is not taken in [ ], which has ASCII letters")
        return frozenset(letter.encode())


def _moved(program: list[_Instruction], by: int) -> list[_Instruction]:
    return [_Split(one.first + by, one.second + by) if isinstance(one, _Split) else one for one in program]
