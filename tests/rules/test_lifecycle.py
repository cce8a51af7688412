"""The table of verbs and states, and what a refusal says."""

import pytest

from supervisor.errors import BadRequestError, InvalidStateError
from supervisor.models import ForkOptions, State
from supervisor.rules.fork_plan import plan_fork
from supervisor.rules.lifecycle import (
    ALLOWED_FROM,
    HAS_VMM,
    REFUSED_WHILE_LOCKED,
    TRANSITIONS,
    Intent,
    Recovery,
    Verb,
    check,
    check_fork,
    check_transition,
    named,
    recovery,
)


@pytest.mark.parametrize("verb", Verb)
@pytest.mark.parametrize("state", State)
def test_a_verb_is_allowed_exactly_from_the_states_of_the_table(verb: Verb, state: State) -> None:
    if state in ALLOWED_FROM[verb]:
        check(verb, "vm", state)
    else:
        with pytest.raises(InvalidStateError, match=f"^vm: {verb} refused: it is {state}, and must be "):
            check(verb, "vm", state)


@pytest.mark.parametrize("verb", Verb)
def test_a_lock_refuses_what_would_change_the_memory_and_names_its_holders(verb: Verb) -> None:
    if verb in REFUSED_WHILE_LOCKED:
        with pytest.raises(
            InvalidStateError, match=r"mem_locked by 2 share_memory forks \(a, b\); delete them"
        ) as caught:
            check(verb, "vm", State.STANDBY, ["a", "b"])
        assert [detail["name"] for detail in caught.value.details] == ["a", "b"]
    elif verb is Verb.FORK:
        check(verb, "vm", State.STANDBY, ["a", "b"])


@pytest.mark.parametrize("verb", [Verb.STANDBY, Verb.CHECKPOINT])
def test_what_is_refused_to_a_locked_source_is_not_what_would_allow_it(verb: Verb) -> None:
    with pytest.raises(
        InvalidStateError, match=r"Running; fork it, or detach or delete its forks \(a, b\) and restore"
    ):
        check(verb, "vm", State.STANDBY, ["a", "b"])
    with pytest.raises(InvalidStateError, match=r"Running; restore it first$"):
        check(verb, "vm", State.STANDBY)


@pytest.mark.parametrize(
    ("verb", "state", "words"),
    [
        (Verb.STOP, State.STANDBY, "it does not run, so there is nothing to stop"),
        (Verb.STOP, State.STOPPED, "it does not run, so there is nothing to stop"),
        (Verb.RESTORE, State.RUNNING, "it runs already"),
        (Verb.START, State.RUNNING, "it runs already"),
        (Verb.RESTORE, State.STOPPED, "start it instead"),
        (Verb.START, State.STANDBY, "restore it instead"),
    ],
)
def test_a_verb_that_is_not_needed_says_so(verb: Verb, state: State, words: str) -> None:
    with pytest.raises(InvalidStateError, match=f"; {words}$"):
        check(verb, "vm", state)


def test_a_locked_source_has_nothing_to_stop_either() -> None:
    with pytest.raises(InvalidStateError, match=r"nothing to stop$"):
        check(Verb.STOP, "vm", State.STANDBY, ["a"])


def test_restore_start_and_delete_are_what_a_lock_refuses() -> None:
    assert {Verb.RESTORE, Verb.START, Verb.DELETE} == REFUSED_WHILE_LOCKED


def test_many_holders_are_counted() -> None:
    assert named([f"f{number}" for number in range(8)]) == "f0, f1, f2, f3, f4 and 3 more"


@pytest.mark.parametrize(
    ("state", "options", "error", "words"),
    [
        (
            State.STANDBY,
            {"share_memory": True, "from_running": True},
            BadRequestError,
            "fork needs a Standby",
        ),
        (State.STANDBY, {"share_memory": True, "template_id": "t"}, BadRequestError, "finds its template by itself"),
        (State.RUNNING, {"template_id": "t", "from_running": True}, BadRequestError, "no copy of what runs"),
        (State.RUNNING, {}, InvalidStateError, "from_running=true"),
        (State.RUNNING, {"share_memory": True}, InvalidStateError, "put it to standby first"),
        (State.STANDBY, {"from_running": True}, InvalidStateError, "leave from_running out"),
        (State.STOPPED, {"share_memory": True}, InvalidStateError, "it is Stopped; start it, then put it to standby"),
        (State.STOPPED, {"target_state": "Standby"}, InvalidStateError, "ask for Stopped or Running"),
        (State.PAUSED, {}, InvalidStateError, "must be Running or Standby or Stopped"),
        (State.INITIALIZING, {"from_running": True}, InvalidStateError, "wait until it is Running"),
    ],
)
def test_forks_that_make_no_sense_are_refused(
    state: State, options: dict[str, object], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        check_fork("vm", state, ForkOptions.model_validate(options))


@pytest.mark.parametrize(
    ("state", "options", "target"),
    [
        (State.STANDBY, {"share_memory": True}, State.STANDBY),
        (State.STANDBY, {"share_memory": True, "target_state": "Running"}, State.RUNNING),
        (State.STANDBY, {"target_state": "Stopped"}, State.STOPPED),
        (State.STOPPED, {}, State.STOPPED),
        (State.RUNNING, {"from_running": True}, State.RUNNING),
    ],
)
def test_a_fork_ends_in_the_state_asked_for_or_its_sources(
    state: State, options: dict[str, object], target: State
) -> None:
    checked = ForkOptions.model_validate(options)
    assert plan_fork("vm", state, False, checked).target is target


@pytest.mark.parametrize("before", State)
@pytest.mark.parametrize("after", State)
def test_a_record_takes_exactly_the_transitions_of_the_table(before: State, after: State) -> None:
    if after is before or after in TRANSITIONS[before]:
        check_transition("vm", before, after)
    else:
        with pytest.raises(InvalidStateError, match=f"^vm: it is {before} and cannot become {after}"):
            check_transition("vm", before, after)


@pytest.mark.parametrize("after", State)
def test_a_locked_source_never_runs_whichever_way(after: State) -> None:
    if after in HAS_VMM:
        with pytest.raises(InvalidStateError, match=r"mem_locked by a; delete or detach"):
            check_transition("vm", after, after, ["a"])
    else:
        check_transition("vm", after, after, ["a"])


def test_every_state_is_left_by_some_way_but_unknown_and_nothing_becomes_created_again() -> None:
    assert set(TRANSITIONS) == set(State)
    assert [state for state, after in TRANSITIONS.items() if not after] == [State.UNKNOWN]
    assert State.CREATED not in frozenset().union(*TRANSITIONS.values())


@pytest.mark.parametrize(
    ("state", "intent", "alive", "found"),
    [
        (State.CREATED, "create", False, Recovery.DISCARD),
        (State.STANDBY, "fork", False, Recovery.DISCARD),
        (State.STOPPED, "fork", False, Recovery.DISCARD),
        (State.RUNNING, None, True, Recovery.RUNS),
        (State.INITIALIZING, None, True, Recovery.RUNS),
        (State.RUNNING, None, False, Recovery.LOST),
        (State.STANDBY, "restore", False, Recovery.AT_REST),
        (State.STOPPED, "start", False, Recovery.AT_REST),
        (State.STANDBY, None, True, Recovery.AT_REST),
    ],
)
def test_what_was_begun_is_finished_or_undone(
    state: State, intent: Intent | None, alive: bool, found: Recovery
) -> None:
    assert recovery(state, intent, alive=alive) is found
