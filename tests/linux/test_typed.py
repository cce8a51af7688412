"""A shell of a real Linux on its serial port, typed into by `forktui console`."""

import pytest

from tests.linux.nested_host import NestedHost
from tests.linux.report import Report


@pytest.fixture(scope="module")
def typed(nested_host: NestedHost) -> Report:
    """Run the job."""
    return nested_host.run("typed")


def test_a_shell_answers_what_is_typed_and_is_interrupted(typed: Report) -> None:
    assert "answer-42" in typed["read"]
    assert "woken-2" in typed["read"]


def test_the_next_supervisor_takes_the_console_over_with_nothing_printed_twice(typed: Report) -> None:
    before, _, after = typed["read"].partition("connected again")
    assert "after-8" in after
    assert before.count("answer-42") == 1
    assert "answer-42" not in after


def test_the_console_was_left_in_order_and_a_forks_shell_goes_on(typed: Report) -> None:
    assert (typed["exit code"], typed["exit code of the fork's"]) == (0, 0)
    assert "fork-9" in typed.console("fork")


def test_the_job_of_typing_came_to_its_end(typed: Report) -> None:
    assert typed.stopped is None
