"""A log that is told the same over and over: it says so once, and how often."""

import logging
import threading

import pytest

from supervisor.daemon.repeated_lines import KINDS, VARIANTS, RepeatedLines
from tests.harness.supervisor_process import PATIENCE


class Written(logging.Handler):
    """Keeps what is written to it, and tells of a line with a count."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.counted = threading.Event()

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        if "times more" in self.lines[-1]:
            self.counted.set()


@pytest.fixture
def written() -> Written:
    return Written()


@pytest.fixture
def log(written: Written) -> logging.Logger:
    made = logging.Logger("test")
    made.addHandler(written)
    return made


def test_a_line_that_is_repeated_is_counted(log: logging.Logger, written: Written) -> None:
    repeated = RepeatedLines(written)
    written.addFilter(repeated)
    for number in range(533):
        log.warning("no connection can be accepted: %s", "Too many open files")
        if number in (0, 300):
            log.warning("something else, %d", number)
    repeated.tell(all_of_them=True)
    assert written.lines == [
        "no connection can be accepted: Too many open files",
        "something else, 0",
        "something else, 300",
        "no connection can be accepted: Too many open files ... 532 times more in 10 s",
    ]
    log.warning("no connection can be accepted: %s", "Too many open files")
    assert written.lines[4:] == ["no connection can be accepted: Too many open files"]


def test_a_count_is_told_though_nothing_more_is_logged(log: logging.Logger, written: Written) -> None:
    written.addFilter(RepeatedLines(written, seconds=0.05))
    log.warning("again")
    log.warning("again")
    assert written.counted.wait(PATIENCE)
    assert written.lines == ["again", "again ... 1 times more in 0.05 s"]


def test_lines_that_a_peer_can_vary_are_counted_as_one(log: logging.Logger, written: Written) -> None:
    repeated = RepeatedLines(written)
    written.addFilter(repeated)
    for number in range(1000):
        log.warning("POST /%d by nobody: 403", number, extra={"counted_as": "nobody"})
    repeated.tell(all_of_them=True)
    assert written.lines == [
        *(f"POST /{number} by nobody: 403" for number in range(VARIANTS)),
        f"POST /0 by nobody: 403 ... {1000 - VARIANTS} times more in 10 s",
    ]


def test_lines_that_differ_are_all_written_and_few_are_remembered(log: logging.Logger, written: Written) -> None:
    repeated = RepeatedLines(written, seconds=0.0)
    written.addFilter(repeated)
    for number in range(10 * KINDS):
        log.info("fork %d is made", number)
    assert len(written.lines) == 10 * KINDS
    assert len(repeated._counted) <= 1


def test_the_same_words_at_another_level_or_of_another_logger_are_another_line(
    log: logging.Logger, written: Written
) -> None:
    written.addFilter(RepeatedLines(written))
    other = logging.Logger("other")
    other.addHandler(written)
    log.info("words")
    log.warning("words")
    other.info("words")
    assert written.lines == ["words"] * 3
