"""Text of a log: whatever is in it makes one line, or lines that begin no record."""

import subprocess
import sys

import pytest

from supervisor.system.log_text import LIMIT, TRACEBACK_LIMIT, escaped, indented, one_line
from supervisor.system.regular_files import shown
from tests.harness.supervisor_process import PATIENCE

HOSTILE = {
    "line feed": ("a\nb", r"a\nb"),
    "carriage return": ("a\r\nb", r"a\r\nb"),
    "escape": ("a\x1b[2Jb", r"a\x1b[2Jb"),
    "C1": ("a\x9b2J\x85b", r"a\x9b2J\x85b"),
    "NUL": ("a\0b", r"a\x00b"),
    "separators": ("a\u2028b\u2029c", r"a\u2028b\u2029c"),
    "vertical": ("a\v\f\x1c\x1d\x1eb", r"a\x0b\x0c\x1c\x1d\x1eb"),
    "bidi override": ("a\u202eb\u2066c", r"a\u202eb\u2066c"),
    "tags": ("a\U000e0041b", r"a\U000e0041b"),
    "surrogate": ("a\udc80b", r"a\udc80b"),
    "backspace and delete": ("a\b\x7fb", r"a\x08\x7fb"),
    "tab and wide blank": ("a\tb\u3000c", r"a\tb\u3000c"),
    "harmless": ("Zoë: 64 MiB → ok", "Zoë: 64 MiB → ok"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_message_is_one_line_that_a_terminal_can_only_print(kind: str) -> None:
    text, told = HOSTILE[kind]
    assert one_line(text) == escaped(text) == told
    assert one_line(text).encode().decode().splitlines() == [told]


def test_a_path_is_escaped_as_a_message_is() -> None:
    assert shown(b"a\xff\n\xc2\x85b".decode(errors="surrogateescape")) == r"a\xff\n\x85b"
    assert shown("Zoë" * LIMIT) == "Zoë" * LIMIT


@pytest.mark.parametrize("character", ("x", "\x1b", "\U000e0041"))
def test_a_message_is_bounded_in_characters_whatever_they_become(character: str) -> None:
    assert one_line(character * (LIMIT // 10)) == one_line(character) * (LIMIT // 10)
    long = one_line(character * (20 << 20))
    assert long.endswith(f"... ({20 << 20} characters)")
    assert len(long) < LIMIT + 50


def test_no_line_of_a_traceback_begins_like_a_record() -> None:
    forged = "2026-01-01 00:00:00 INFO supervisor: all is well"
    told = indented(f"Traceback\n{forged}\r{forged}\u2028{forged}\n\x1b[2J")
    assert [line[:4] for line in told.splitlines()] == ["    "] * 3
    assert "\x1b" not in told


def test_a_traceback_is_bounded_and_keeps_both_ends() -> None:
    told = indented("Traceback\n" + "\n".join(["x" * 100] * 100_000) + "\nValueError: the end")
    assert told.startswith("    Traceback\n")
    assert told.endswith("\n    ValueError: the end")
    assert len(told) < 2 * TRACEBACK_LIMIT


RAISES = """
import threading
from supervisor.system.last_words import escape_tracebacks
escape_tracebacks()
class Hostile(Exception):
    pass
text = "gone\\n2026-01-01T00:00:00 forged\\x1b[2J\\udc80"
def fail():
    raise Hostile(text)
class Dropped:
    def __del__(self):
        fail()
Dropped()
thread = threading.Thread(target=fail, name="worker\\nforged")
thread.start()
thread.join()
fail()
"""


def test_an_exception_that_nobody_catches_forges_no_line() -> None:
    """In a destructor, in a thread and in the main one."""
    ended = subprocess.run((sys.executable, "-c", RAISES), capture_output=True, timeout=PATIENCE)
    lines = ended.stderr.decode().splitlines()
    assert ended.returncode == 1
    assert sum(line.startswith("    ") for line in lines) > 6
    assert len([line for line in lines if not line.startswith("    ")]) == 3, "one record for each"
    assert b"\x1b" not in ended.stderr
    assert ended.stderr.count(b"Hostile: gone") == 3
