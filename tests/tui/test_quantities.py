"""Numbers and how many things, in words."""

import pytest

from forktui.text.quantities import deleted, ended, plural, progress
from supervisor.models import Operation, how_many


@pytest.mark.parametrize(("number", "words"), [(0, "0 instances"), (1, "1 instance"), (2, "2 instances")])
def test_one_thing_is_not_many(number: int, words: str) -> None:
    assert plural(number, "instance") == how_many(number, "instance") == words
    operation = Operation(name="web", verb="delete", asked_by="root", done=0, total=number, unit="instances")
    assert progress(operation) == f"0 of {words}"
    assert ended(operation.model_copy(update={"outcome": "cancelled"})).endswith(f"0 of {words}")


def test_what_is_counted_in_nothing_and_in_bytes() -> None:
    operation = Operation(verb="merge", asked_by="root", done=1 << 20, total=2 << 20, unit="bytes")
    assert progress(operation) == "1.0 of 2.0 MiB"
    assert progress(operation.model_copy(update={"unit": None, "done": 1, "total": 2})) == "1 of 2"


def test_an_instance_that_is_no_more_is_told_by_the_beginning_of_its_id() -> None:
    assert deleted("0123456789abcdef01234567") == "(deleted) 01234567"
