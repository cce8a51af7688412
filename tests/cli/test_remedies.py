"""What would allow a request, said to an API's client and to an operator."""

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import supervisor
from forktui.text.api_words import REMEDIES, in_commands, in_dashboard
from supervisor.errors import SupervisorError
from supervisor.models import ForkOptions, State
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import Verb

API_WORDS = re.compile(r"\b(GET|POST|DELETE) /(?!capabilities)\w+ |\b\w+=true\b|\b(leave|give) [a-z]+_[a-z_]+")
"""No command shows the capabilities."""


def said_by_the_supervisor() -> Iterator[str]:
    """The texts in the modules that make errors of requests, but for their documentation; a VMM has its own words."""
    rooms = Path(supervisor.__file__).parent
    for path in sorted(set(rooms.rglob("*.py")) - set((rooms / "embedded").rglob("*.py"))):
        tree = ast.parse(path.read_text())
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                yield node.value


def test_every_remedy_is_one_that_the_supervisor_gives() -> None:
    said = "\n".join(said_by_the_supervisor())
    assert [remedy.api for remedy in REMEDIES if remedy.api not in said] == []


@pytest.mark.parametrize("told", [in_commands, in_dashboard])
def test_no_remedy_is_left_in_words_of_the_api(told: Callable[[str], str]) -> None:
    left = [told(text) for text in said_by_the_supervisor() if "template" not in text]
    assert [text for text in left if API_WORDS.search(text)] == []


def test_a_lock_is_explained_to_each_in_their_words() -> None:
    with pytest.raises(SupervisorError) as refused:
        lifecycle.check(Verb.DELETE, "web", State.STANDBY, ("one", "two"))
    assert refused.value.message.endswith("delete them first, or give cascade=true to delete them too")
    assert in_commands(refused.value.message).endswith("delete them first, or give --cascade to delete them too")
    assert in_dashboard(refused.value.message).endswith("or press d on it alone to delete them too")


def test_a_copy_of_what_runs_is_offered_to_each_in_their_words() -> None:
    with pytest.raises(SupervisorError) as refused:
        lifecycle.check_fork("web", State.RUNNING, ForkOptions())
    assert in_commands(refused.value.message).endswith("or give --from-running for a copy")
    assert in_dashboard(refused.value.message).endswith("or press f for a copy")
