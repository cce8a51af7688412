"""What of a guest's bytes reaches a terminal, and what of the keys reaches the guest."""

import re

import pyte
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.text.terminal_stream import MOST_OF_A_SEQUENCE, TerminalStream
from forktui.text.typed_keys import Asked, Typed, TypedKeys

SEQUENCE = re.compile(r"\x1b(?:\[([0-9;:?]*)([@-~])|[()][AB0]|[78DEHM=>])")
"""All that may come with an escape."""
FORBIDDEN_FINALS = set("cntqxypi")
"""Of sequences that are answered, print, or move windows."""


def fed(data: bytes) -> str:
    return TerminalStream().feed(data)


@pytest.mark.parametrize(
    "data",
    [
        "login: ",
        "\r\nroot@guest:~# ls\r\n\x1b[0m\x1b[01;34mbin\x1b[0m\r\n",
        "\x1b[H\x1b[2J\x1b[10;20Hmenu\x1b[K\x1b[?25l\x1b[?1049h\x1b[?7h\x1b[4l",
        "\x1b7\x1b[1;24r\x1b8\x1b(0lqk\x1b(B\a\b\t",
        "Zürich \U0001f40d 漢字",
        "\x1b[38;2;1;2;3mtrue colour\x1b[38:5:9m",
    ],
)
def test_what_moves_erases_and_colours_passes(data: str) -> None:
    assert fed(data.encode()) == data


@pytest.mark.parametrize(
    "data",
    [
        "\x1b]0;title\a",
        "\x1b]52;c;cm0gLXJmIH4K\x1b\\",
        "\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\",
        "\x1b[6n",
        "\x1b[c\x1b[>c\x1b[=c",
        "\x1b[21t",
        "\x1b[5i",
        "\x1bP$q m\x1b\\",
        "\x1b_apc\x1b\\\x1b^pm\x1b\\\x1bXsos\x1b\\",
        "\x1b[?1000h\x1b[?1006h",
        "\x1b[?25;1000h",
        "\x1b#8\x1bc\x1b%G",
        "\x05\x0e\x0f\x11\x7f\u009b31m\u009d0;x\u009c",
        "\x1b[" + "1;" * MOST_OF_A_SEQUENCE + "m",
        "\x1b[!p",
        "\x1b[ q",
    ],
)
def test_what_sets_asks_or_prints_does_not(data: str) -> None:
    assert fed(data.encode()).isprintable()


def test_a_sequence_comes_when_it_is_whole_however_it_is_cut() -> None:
    stream = TerminalStream()
    assert [stream.feed(bytes((one,))) for one in b"a\x1b[1"] == ["a", "", "", ""]
    assert stream.feed(b"m\xc3") == "\x1b[1m"
    assert stream.feed(b"\xbc") == "ü"
    assert stream.feed(b"\x1b]0;half") == ""
    assert stream.feed(b" of it\x1b") == ""
    assert stream.feed(b"\\ok") == "ok"


PIECES = st.binary(max_size=20) | st.sampled_from([b"\x1b[", b"\x1b]", b"\x1bP", b"\x9b", b"\x1b", b"6n", b"\x18"])


@given(st.lists(PIECES))
def test_nothing_else_passes_whatever_comes_and_however_it_is_cut(pieces: list[bytes]) -> None:
    stream = TerminalStream()
    passed = "".join(map(stream.feed, pieces))
    assert passed == fed(b"".join(pieces))
    for found in SEQUENCE.finditer(passed):
        assert (found[2] or "m") not in FORBIDDEN_FINALS
    rest = SEQUENCE.sub("", passed)
    assert all(one in "\a\b\t\n\r" or one >= " " for one in rest)
    assert not any("\x7f" <= one <= "\x9f" for one in rest)


@given(st.binary(max_size=300))
def test_a_terminal_that_is_given_it_is_asked_for_nothing(data: bytes) -> None:
    screen = pyte.Screen(80, 24)
    answers: list[str] = []
    screen.write_process_input = answers.append  # type: ignore[method-assign, assignment]
    pyte.Stream(screen).feed(fed(b"\x1b[6n" + data + b"\x1b[c\x1b[5n"))
    assert answers == []


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (b"ls\r", [Typed(b"ls\r")]),
        (b"~.", [Typed(b"", Asked.LEAVE)]),
        (b"exit\r~.", [Typed(b"exit\r", Asked.LEAVE)]),
        (b"cd ~.\r", [Typed(b"cd ~.\r")]),
        (b"~~/bin\r", [Typed(b"~/bin\r")]),
        (b"~/bin", [Typed(b"~/bin")]),
        (b"\n~s~?", [Typed(b"\n", Asked.SIZE), Typed(b"", Asked.HELP)]),
        (b"\x03~", [Typed(b"\x03~")]),
        (b"~", []),
    ],
)
def test_a_tilde_at_the_beginning_of_a_line_is_for_the_client(keys: bytes, found: list[Typed]) -> None:
    assert TypedKeys().feed(keys) == found
    # However the keys are cut.
    one_by_one = TypedKeys()
    pieces = [piece for key in keys for piece in one_by_one.feed(bytes((key,)))]
    assert b"".join(piece.data for piece in pieces) == b"".join(piece.data for piece in found)
    assert [piece.asked for piece in pieces if piece.asked] == [piece.asked for piece in found if piece.asked]
