"""Foreign text: whatever goes in, what comes out can only be printed."""

import unicodedata
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from forktui.text.safe import TEXT_LIMIT, ascii_text, safe_model, safe_text
from supervisor.models import (
    Activity,
    Guest,
    HostSnapshot,
    HostStatistics,
    InstanceStatistics,
    Reset,
    Statistics,
    SupervisorInfo,
)

AT = datetime(2026, 1, 1, tzinfo=UTC)
BIDI = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u200e\u200f\u061c"


def obeyed_by_a_terminal(text: str) -> list[str]:
    """The characters that a terminal acts on or does not show."""
    bad = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
    return [character for character in text if unicodedata.category(character) in bad]


@given(st.text() | st.text(st.characters(max_codepoint=0xA0)))
def test_any_text_becomes_printable(text: str) -> None:
    safe = safe_text(text)
    assert obeyed_by_a_terminal(safe) == []
    assert len(safe) <= TEXT_LIMIT
    assert safe_text(safe) == safe


@given(st.binary())
def test_any_bytes_become_printable(data: bytes) -> None:
    assert obeyed_by_a_terminal(safe_text(data)) == []


@given(st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=TEXT_LIMIT))
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert safe_text(text) == text


def test_escape_sequences_lose_what_makes_them_one() -> None:
    assert safe_text("\x1b]0;owned\x07\x9b31mred") == "�]0;owned��31mred"
    assert safe_text(b"\x9b31m\x1b[2J") == "�31m�[2J"


def test_bidi_and_invisible_characters_are_left_out() -> None:
    assert safe_text(f"a{BIDI}b") == "ab"
    assert safe_text("vm\ufe0f\u200b\u2060\ufeff\u034f1") == "vm1"


def test_line_ends_and_blanks_are_one_space_each() -> None:
    assert safe_text("a\tb\nc\u2028d\u00a0e") == "a b c d e"


def test_letters_of_any_script_stay() -> None:
    assert safe_text("größe 虚拟机 é") == "größe 虚拟机 é"


def test_the_limit_counts_what_is_read_and_an_ellipsis_says_so() -> None:
    assert safe_text("x" * 20, limit=8) == "x" * 7 + "…"
    assert safe_text("x" * 8, limit=8) == "x" * 8


def test_ascii_text_has_a_question_mark_for_what_ascii_lacks() -> None:
    assert ascii_text("größe…") == "gr??e~"


@given(st.text(), st.text())
def test_every_string_of_a_model_becomes_safe(message: str, corrupt: str) -> None:
    event = safe_model(Activity(at=AT, level="info", message=message, instance_id=corrupt))
    assert (event.message, event.instance_id) == (safe_text(message), safe_text(corrupt))
    statistics = Statistics(
        at=AT, instances=(InstanceStatistics(id="a", guest=Guest(corrupt=corrupt)),), host=HostStatistics()
    )
    guest = safe_model(statistics).instances[0].guest
    assert guest is not None
    assert guest.corrupt == safe_text(corrupt)


def test_a_model_at_any_depth_is_reached_and_enumerations_keep_their_type() -> None:
    supervisor = SupervisorInfo(
        pid=1, version="\x1b1", started_at=AT, data_dir="\x9b", hypervisor="embedded", hypervisor_version="\x00"
    )
    event = Reset(
        snapshot=HostSnapshot(supervisor=supervisor, instances=(), templates=(), statistics=(), host=HostStatistics())
    )
    safe = safe_model(event).snapshot.supervisor
    assert (safe.version, safe.data_dir, safe.hypervisor_version) == ("�1", "�", "�")


def test_a_model_that_is_safe_already_is_not_copied() -> None:
    event = Activity(at=AT, level="alarm", message="plain")
    assert safe_model(event) is event
