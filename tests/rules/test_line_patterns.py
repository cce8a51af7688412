"""Patterns of what a guest prints: found as `re` finds them, in time that grows with the text alone."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.models.line_patterns import LONGEST_PATTERN, MOST_PLACES, LinePattern, LineSearch

PIECES = ("a", "b", ".", "[ab]", "[^a]", r"\d", "(a|b)", "(ab|b)", "(?:a)", "^", "$", "é", r"\.", "[a-c-]", "[]a]")


def found(pattern: str, text: bytes) -> bool:
    return LineSearch(LinePattern(pattern)).feed(text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("login:", b"debian login: "),
        ("^ready$", b"x\nready\r\n"),
        (r"pass \d+ of (10|20)", b"pass 17 of 20"),
        ("f.*bar", b"foo and bar"),
        ("[[]  OK  ] Reached target", b"[  OK  ] Reached target Multi-User"),
        ("listening on .*:8080", b"listening on 0.0.0.0:8080"),
        ("über", "das ist über".encode()),
    ],
)
def test_what_is_printed_is_found(pattern: str, text: bytes) -> None:
    assert found(pattern, text)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [("^ready", b"not ready\n"), ("ready$", b"ready yet\nready"), ("a.b", b"a\nb"), ("passes", b"pass\nes")],
)
def test_what_is_printed_otherwise_is_not_found(pattern: str, text: bytes) -> None:
    assert not found(pattern, text)


@pytest.mark.parametrize(
    "pattern",
    ["", "a{2}", "(a", "a)", "[a", "*a", "a**", "a+?", r"\b", r"\1", "(?=a)", "(?i)a", "a*", "a|", "[b-a]", "[é]", "\\",
     "(" * 30 + "a" + ")" * 30, "a" * (LONGEST_PATTERN + 1), "^$"],
)  # fmt: skip
def test_what_is_not_taken_is_refused_in_a_line(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]{10,}$"):
        LinePattern(pattern)


@given(
    st.lists(st.tuples(st.sampled_from(PIECES), st.sampled_from(["", "*", "+", "?"])), min_size=1, max_size=6),
    st.lists(st.sampled_from(["a", "b", "c", ".", "5", "é", "]", "-", "\n"]), max_size=12),
    st.integers(0, 20),
)
def test_it_finds_what_re_finds(pieces: list[tuple[str, str]], letters: list[str], cut: int) -> None:
    text = "".join(piece + ("" if piece in "^$" else many) for piece, many in pieces)
    # re has é as two bytes, of which the last alone would be repeated.
    expected = re.compile(text.replace("é", "(?:é)").encode())
    try:
        pattern = LinePattern(text)
    except ValueError:
        assert expected.search(b"") is not None
        return
    printed = "".join(letters).encode() + b"\n"
    search = LineSearch(pattern)
    search.feed(printed[:cut])
    assert search.feed(printed[cut:]) == any(expected.search(line) for line in printed.split(b"\n")[:-1])


def test_a_hostile_pattern_on_a_hostile_text_takes_no_longer_than_another() -> None:
    """`re` would not end before the sun does."""
    search = LineSearch(LinePattern("(a+)+(a*)*(a|a?)+b$"))
    assert not search.feed(b"a" * 100_000)
    assert search.feed(b"b\n")


def test_what_is_remembered_of_a_pattern_is_bounded() -> None:
    pattern = LinePattern("[^e]" + "." * 190 + "#")
    search = LineSearch(pattern)
    for number in range(20):
        search.feed(bytes(ord("a") + (number * 7 + at * at) % 23 for at in range(500)))
    assert sum(map(len, pattern._steps.values())) <= MOST_PLACES + len(pattern._program)


@pytest.mark.parametrize(
    ("pattern", "plain"),
    [
        ("login:", True),
        (r"a\.b \(c\)", True),
        ("é", True),
        ("a.b", False),
        ("^a", False),
        ("[ab]", False),
        ("ab*", False),
    ],
)
def test_plain_words_are_told_from_what_may_take_long(pattern: str, plain: bool) -> None:
    assert LinePattern(pattern).is_plain is plain
