"""A light background found: by the environment, and by the terminal's answer, of which no byte becomes a key."""

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.tui.background import QUESTION, Answers, can_be_asked, is_light, light_by_environment
from tests.harness.own_terminal import dashboard_of_nobody, on_a_terminal

LIGHT = "48;2;251;252;253m"
DARK = "48;2;15;20;27m"
UNCHOSEN = {"TEXTUAL_THEME": "", "COLORFGBG": ""}
WHITE = "\x1b]11;rgb:ffff/ffff/ffff\x1b\\"
ATTRIBUTES = "\x1b[?62;4;22c"


@pytest.mark.parametrize(
    ("value", "light"),
    [
        ("0;15", True),
        ("15;0", False),
        ("0;default;7", True),
        ("15;8", False),
        ("", None),
        ("0;default", None),
        ("9", True),
    ],
)
def test_what_colorfgbg_says(value: str, light: bool | None) -> None:
    assert light_by_environment({"COLORFGBG": value}) is light


@pytest.mark.parametrize(
    ("colour", "light"),
    [
        ("rgb:ffff/ffff/ffff", True),
        ("rgb:00/00/00", False),
        ("rgba:f/f/f/f", True),
        ("rgb:0000/0000/ffff", False),
        ("rgb:1/2", None),
        ("\x1b[2J", None),
    ],
)
def test_what_a_colour_is(colour: str, light: bool | None) -> None:
    assert is_light(colour) is light


def test_the_kernels_console_and_one_without_colour_are_not_asked() -> None:
    assert not can_be_asked({"TERM": "linux"})
    assert not can_be_asked({"TERM": "xterm", "NO_COLOR": "1"})
    assert can_be_asked({"TERM": "tmux-256color"})


@given(
    st.lists(st.integers(0, 60), max_size=6), st.sampled_from([WHITE, WHITE.replace("\x1b\\", "\x07")]), st.booleans()
)
def test_answers_in_any_pieces_leave_the_keys_around_them(cuts: list[int], answer: str, second_first: bool) -> None:
    sent = "ab" + (ATTRIBUTES + "c" + answer if second_first else answer + "c" + ATTRIBUTES) + "d\x1b[A"
    answers = Answers()
    assert answers.ask() == QUESTION
    # Escape is held back until the second answer only: a first one behind that comes whole.
    bounds = [0, *sorted(min(cut, len(sent)) for cut in cuts if not second_first), len(sent)]
    kept = "".join(answers.take(sent[begin:end]) for begin, end in pairwise(bounds))
    assert kept + answers.release() == "abcd\x1b[A"
    assert answers.light is True


def test_keys_that_look_like_the_beginning_of_an_answer_come_when_nothing_follows() -> None:
    answers = Answers()
    answers.ask()
    for key in ("\x1b", "\x1b]", "\x1b["):
        assert answers.take(key) == ""
        assert answers.release() == key
        assert answers.release() == ""
    answers.take(ATTRIBUTES)
    assert answers.take("\x1b") == "\x1b", "behind the second answer Escape waits for nothing"


def test_who_was_not_asked_sends_keys_only() -> None:
    assert Answers().take(WHITE) == WHITE


def test_a_terminal_that_answers_at_once_is_drawn_light(run_dir: Path) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir), environment=UNCHOSEN) as (terminal, _):
        terminal.until_written(QUESTION)
        terminal.press(WHITE + ATTRIBUTES)
        terminal.until_written(LIGHT)
        terminal.press("q")
        terminal.drain()


def test_an_answer_that_is_late_and_in_pieces_presses_no_key(run_dir: Path) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir), environment=UNCHOSEN) as (terminal, _):
        terminal.until("no supervisor listens there")
        terminal.until_written(DARK)
        terminal.press("?")
        terminal.until("Virtual machines")
        # As keys they would be typed into this.
        terminal.press("/a")
        terminal.until("Accept")
        for piece in ("\x1b]11;rgb:ff", "ff/ffff/", "ffff\x1b", "\\\x1b[?6", "2;4c"):
            terminal.press(piece)
        terminal.until_written(LIGHT)
        terminal.press("zz")
        terminal.until("Nothing matches")
        terminal.press("\rq")
        terminal.until("Nothing is known of the host")
        terminal.press("q")
        terminal.drain()


@pytest.mark.parametrize(
    ("chosen", "drawn"),
    [
        ({"TEXTUAL_THEME": "", "COLORFGBG": "0;15"}, LIGHT),
        ({"TEXTUAL_THEME": "forktui-light", "COLORFGBG": "15;0"}, LIGHT),
        ({"TEXTUAL_THEME": "forktui-dark", "COLORFGBG": "0;15"}, DARK),
    ],
)
def test_a_terminal_that_says_nothing_is_drawn_as_its_environment_has_it(
    chosen: dict[str, str], drawn: str, run_dir: Path
) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir), environment=chosen) as (terminal, _):
        terminal.until("no supervisor listens there")
        terminal.press("q")
        terminal.drain()
    assert drawn in terminal.written.decode()
    assert (LIGHT if drawn == DARK else DARK) not in terminal.written.decode()
    assert (QUESTION in terminal.written.decode()) == (chosen["TEXTUAL_THEME"] == "")
