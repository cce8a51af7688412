"""What the table of a long run calls growth: a leak however slow, and neither noise nor a single step."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.harness.census import descriptors
from tests.harness.growth import Row, comparison, grown, heading, line

ROUNDS = 30


def rows(figure: Callable[[int], float], column: str = "descriptors") -> list[Row]:
    return [{column: figure(number)} for number in range(ROUNDS)]


@pytest.mark.parametrize(
    ("column", "figure", "expected"),
    [
        ("descriptors", lambda number: 16, False),
        ("descriptors", lambda number: 16 + number % 4, False),
        ("descriptors", lambda number: 40 if number == 29 else 16, False),
        ("descriptors", lambda number: 16 + number, True),
        ("descriptors", lambda number: 16 + number % 2 + number // 5, True),
        ("cgroups", lambda number: number // 10, True),
        ("descriptors", lambda number: 60 - number, False),
        ("private MiB", lambda number: 40 + number % 7, False),
        ("private MiB", lambda number: 40 + 0.2 * number, False),
        ("private MiB", lambda number: 40 + number, True),
        ("data MiB", lambda number: 1.0 + 0.5 * number, True),
    ],
)
def test_growth_is_told_from_noise(column: str, figure: Callable[[int], float], expected: bool) -> None:
    assert grown(rows(figure, column), [column]) == ([column] if expected else [])


def test_a_few_rounds_say_nothing_of_growth() -> None:
    assert grown(rows(lambda number: number)[:5], ["descriptors"]) == []


def test_a_column_that_grew_is_told_with_its_ratio() -> None:
    _, told = comparison(rows(lambda number: 10 + number), ["descriptors"])
    assert told.split() == ["descriptors", "14.5", "34.5", "2.38", "GREW"]


def test_names_of_several_words_stand_above_their_figures() -> None:
    row = {"minutes": 0.5, "page server's descriptors": 12}
    table = [*heading(row), line(row)]
    assert table == ["                page", "            server's", "minutes  descriptors", "    0.5           12"]


def test_descriptors_are_counted_by_kind() -> None:
    here, there = socket.socketpair()
    child = subprocess.Popen((sys.executable, "-c", "input()"), stdin=subprocess.PIPE)
    before = descriptors(os.getpid())
    with here, there, child:
        pidfd = os.pidfd_open(child.pid)
        after = descriptors(os.getpid())
        os.close(pidfd)
        child.communicate()
    assert after - before == {"pidfd": 1}
    assert descriptors(os.getpid())["socket"] == before["socket"] - 2
