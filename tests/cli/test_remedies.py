"""What would allow a request: a value on the wire, in the API's words there, in a user's own words here."""

import ast
import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from string import Formatter

import pytest
from pydantic import BaseModel

import supervisor
from forktui.cli.main import parser
from forktui.text.remedies import WORDINGS, Failure, in_commands, in_dashboard
from supervisor.api.requests import DeleteQuery
from supervisor.errors import BadRequestError, SupervisorError
from supervisor.models import (
    AcceptRequest,
    CreateRequest,
    ErrorBody,
    FanOutChild,
    FanOutRequest,
    ForkOptions,
    ForkRequest,
    Remedy,
    State,
)
from supervisor.remedies import API_WORDS
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import Verb

ROOMS = Path(supervisor.__file__).parent
TABLE = ROOMS / "remedies.py"
REQUESTS: tuple[type[BaseModel], ...] = (AcceptRequest, CreateRequest, ForkRequest, FanOutRequest, DeleteQuery)
OPTIONS = {name for request in REQUESTS for name in request.model_fields}
API_WORDS_IN_PROSE = re.compile(
    r"\b(GET|POST|DELETE) /(instances|images|events|capabilities|health)"
    rf"|\b({'|'.join(sorted(OPTIONS))})="
    r"|\b(give|leave|use) [a-z]+_[a-z_]+"
    # share_memory forks are what those forks are called; alone it is an option, as every name with an underscore is.
    rf"|\b({'|'.join(sorted(name for name in OPTIONS if '_' in name))})\b(?! forks?\b)"
)
TABLES: tuple[Mapping[Remedy, str], ...] = (
    API_WORDS,
    {remedy: wording.command for remedy, wording in WORDINGS.items()},
    {remedy: wording.dashboard for remedy, wording in WORDINGS.items()},
)


def rooms() -> Iterator[tuple[Path, ast.Module]]:
    """Every module that makes errors of requests; a VMM has its own words."""
    for path in sorted(set(ROOMS.rglob("*.py")) - set((ROOMS / "embedded").rglob("*.py")) - {TABLE}):
        yield path, ast.parse(path.read_text())


def prose() -> Iterator[tuple[str, str]]:
    """Where the supervisor has a text of several words that is no documentation, and the text."""
    for path, tree in rooms():
        documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        texts = [node for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in documentation]
        for text in texts:
            if isinstance(text.value, str) and (" " in text.value or "=" in text.value):
                yield f"{path.relative_to(ROOMS)}:{text.lineno}", text.value


def refusal(state: State, **options: object) -> ErrorBody:
    """The answer to a fork that is refused."""
    with pytest.raises(SupervisorError) as refused:
        lifecycle.check_fork("web", state, ForkOptions.model_validate(options))
    return ErrorBody.of(refused.value)


def locked(verb: Verb) -> ErrorBody:
    """The answer to a verb that a lock refuses."""
    with pytest.raises(SupervisorError) as refused:
        lifecycle.check(verb, "web", State.STANDBY, ("one", "two"))
    return ErrorBody.of(refused.value)


def test_the_supervisor_says_in_one_place_only_what_a_request_can_be_given() -> None:
    assert [(where, text) for where, text in prose() if API_WORDS_IN_PROSE.search(text)] == []


@pytest.mark.parametrize("table", TABLES, ids=("API", "commands", "dashboard"))
def test_each_remedy_is_worded_for_everybody_to_follow_its_cause(table: Mapping[Remedy, str]) -> None:
    assert set(table) == set(Remedy)
    assert [words for words in table.values() if not words.startswith(("; ", ", or "))] == []
    takes_parameter = {remedy for remedy in Remedy if any(name for _, name, _, _ in Formatter().parse(table[remedy]))}
    assert takes_parameter == {Remedy.ACCEPT, Remedy.HYPERVISOR}


def test_each_remedy_is_given_somewhere() -> None:
    given = {
        node.attr
        for _, tree in rooms()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Remedy"
    }
    assert given == set(Remedy.__members__)


def test_an_operator_is_told_options_that_there_are() -> None:
    commands = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr]
    known = {option for command in commands.values() for option in command._option_string_actions}  # type: ignore[union-attr]
    for wording in WORDINGS.values():
        for words in wording:
            assert not re.search(rf"\b({'|'.join(OPTIONS)})=", words.replace("--hypervisor=", ""))
            assert {option.partition("=")[0] for option in re.findall(r"--[a-z-]+", words)} <= known
            for quoted in re.findall(r"`(.*?)`", words):
                program, command, *options = shlex.split(quoted)
                assert program == "forktui"
                its = commands[command]._option_string_actions  # type: ignore[index]
                assert {option.partition("=")[0] for option in options if option.startswith("--")} <= set(its)


@pytest.mark.parametrize(
    ("failure", "api", "command", "dashboard"),
    [
        (
            locked(Verb.DELETE),
            "(one, two); delete them first, or give cascade=true to delete the whole tree",
            "(one, two); delete them first, or give --cascade to delete the whole tree",
            "(one, two); delete them first, or press d on it alone to delete the whole tree",
        ),
        (
            locked(Verb.RESTORE),
            "(one, two); delete them first, or detach them",
            "(one, two); delete them first, or detach them",
            "(one, two); delete them first, or detach them",
        ),
        (
            refusal(State.RUNNING),
            "it is Running; put it to standby first, or give from_running=true for a copy",
            "it is Running; put it to standby first, or give --from-running for a copy",
            "it is Running; put it to standby first, or press f for a copy",
        ),
        (
            refusal(State.STANDBY, from_running=True),
            "a copy of what runs needs a Running source, and it is Standby; leave from_running out",
            "a copy of what runs needs a Running source, and it is Standby; leave --from-running out",
            "a copy of what runs needs a Running source, and it is Standby; press f again",
        ),
        (
            ErrorBody.of(BadRequestError("no", remedy=Remedy.HYPERVISOR, parameter="firecracker")),
            "no; give hypervisor=firecracker",
            "no; give --hypervisor=firecracker",
            "no; choose the hypervisor firecracker (n)",
        ),
    ],
)
def test_each_is_told_in_words_of_their_own(failure: ErrorBody, api: str, command: str, dashboard: str) -> None:
    assert failure.message.endswith(api)
    assert in_commands(failure).endswith(command)
    assert in_dashboard(failure).endswith(dashboard)


def test_the_cause_and_its_remedy_come_before_the_other_causes() -> None:
    error = locked(Verb.DELETE)
    *holders, cause = error.details
    assert (cause.code, cause.remedy) == ("invalid_state", Remedy.CASCADE)
    assert error.message == cause.message + API_WORDS[Remedy.CASCADE]
    assert [(holder.code, holder.name, holder.remedy) for holder in holders] == [
        ("mem_locked", "one", None),
        ("mem_locked", "two", None),
    ]
    assert [detail.code for detail in locked(Verb.RESTORE).details] == ["mem_locked", "mem_locked"]


@pytest.mark.parametrize("remedy", ["pray", "", 7, None, ["cascade"], {"cascade": 1}])
@pytest.mark.parametrize("told", [in_commands, in_dashboard])
def test_a_remedy_that_is_not_known_here_leaves_the_message_as_it_is(
    remedy: object, told: Callable[[Failure], str]
) -> None:
    detail = {"code": "invalid_state", "message": "web: refused", "remedy": remedy}
    error = {"code": "invalid_state", "message": "web: refused; pray=true", "details": [detail]}
    assert told(ErrorBody.model_validate(error)) == "web: refused; pray=true"
    child = FanOutChild.model_validate({"name": "web-1", "error": error})
    assert child.error is not None
    assert told(child.error) == "web: refused; pray=true"


def test_a_remedy_keeps_its_value_over_the_wire() -> None:
    error = locked(Verb.DELETE)
    assert ErrorBody.model_validate_json(error.model_dump_json()) == error


def test_what_a_peer_says_is_no_format_of_ours() -> None:
    detail = {"message": "{0.__class__} {parameter}", "remedy": "hypervisor", "parameter": "{1}\x1b[2J"}
    error = ErrorBody.model_validate({"code": "", "message": "", "details": [detail]})
    assert in_commands(error) == "{0.__class__} {parameter}; give --hypervisor={1}\x1b[2J"
    assert in_dashboard(error) == "{0.__class__} {parameter}; choose the hypervisor {1}�[2J (n)"
