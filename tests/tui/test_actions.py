"""The actions: one registry, and for each refusal a reason that says what would allow it."""

import inspect
import string
from argparse import ArgumentParser
from collections import Counter

import pytest

from forktui.actions.action import Group, OnScreen, Verb
from forktui.actions.guards import forbidden
from forktui.actions.registry import ACTIONS, BY_WORD, VERBS
from forktui.cli.commands import COMMANDS
from forktui.model.world import World
from supervisor.models import Instance, Operation, State
from supervisor.settings import add_options
from tests.harness.told_hosts import SUPERVISOR, fork_of, instance, locked_source, world_of

ON_INSTANCES = [verb.word for verb in VERBS if not verb.makes]
FORKS = [f"fork-{number}" for number in range(1, 9)]


def verb(word: str) -> Verb:
    """The verb of this word."""
    found = BY_WORD[word]
    assert isinstance(found, Verb)
    return found


def refusal(word: str, world: World, *selection: str, connected: bool = True, writable: bool = True) -> str | None:
    """Why the action is refused on the selection."""
    supervisor = SUPERVISOR.model_copy(update={"writable": writable})
    return verb(word).refused(world, selection, forbidden(supervisor, live=connected, read_only=False))


def in_state(state: State, **fields: object) -> World:
    """A world with one instance called vm."""
    return world_of(instance("vm", state=state, **fields))


def family() -> World:
    """A source that eight forks lock."""
    return world_of(locked_source("source-1", FORKS), *(fork_of("source-1", name) for name in FORKS))


def test_ids_and_keys_are_unique_and_every_group_has_some() -> None:
    assert len(BY_WORD) == sum(1 + len(action.also) for action in ACTIONS)
    assert [key for key, times in Counter(key for action in ACTIONS for key in action.keys).items() if times > 1] == []
    assert {action.group for action in ACTIONS} == set(Group)


def test_every_action_explains_itself_in_one_line() -> None:
    for action in ACTIONS:
        assert action.label[0] in string.ascii_uppercase
        assert action.help
        assert "\n" not in action.help


def test_every_verb_has_all_of_its_parts() -> None:
    world = world_of(instance("vm", fork_kind="share_memory"))
    for verb in VERBS:
        for part in (verb.word, verb.label, verb.help, verb.command, verb.keys):
            assert part, verb.word
        targets = [] if verb.makes else list(world.instances.values())
        assert verb.form is None or {*verb.form(world, targets).fields} <= {*verb.fields}, verb.word
        assert (verb.form is None) == (not verb.fields), verb.word
        assert inspect.iscoroutinefunction(verb.do), verb.word


def test_every_verb_is_a_command_of_its_word_and_every_command_that_acts_an_action() -> None:
    commands = {command.name: command for command in COMMANDS}
    looking = {"ls", "images", "image", "wait"}
    assert {*commands} - looking <= {*BY_WORD}
    for verb in VERBS:
        assert commands[verb.word].help == verb.command


def test_every_field_of_a_form_is_an_option_of_its_command() -> None:
    commands = {command.name: command for command in COMMANDS}
    for verb in VERBS:
        parser = ArgumentParser()
        add_options(parser, commands[verb.word].options)
        commands[verb.word].arguments(parser)
        for field in verb.fields:
            taken = {word for action in parser._actions for word in (action.option_strings or [action.dest])}
            assert (field.name if field.placed else field.option) in taken, f"{verb.word} {field.name}"


# For each verb the states in which it can be done; in all others it is refused.
ALLOWED = {
    "fork": {State.STANDBY, State.RUNNING},
    "fan-out": {State.STANDBY},
    "checkpoint": {State.RUNNING},
    "delete": set(State),
    "standby": {State.RUNNING},
    "restore": {State.STANDBY, State.STOPPED},
    "stop": {State.RUNNING, State.PAUSED, State.INITIALIZING},
    "detach": {State.RUNNING, State.STANDBY, State.STOPPED},
    "accept": {State.STANDBY},
}


@pytest.mark.parametrize("word", ALLOWED)
@pytest.mark.parametrize("state", list(State))
def test_each_verb_is_refused_outside_its_states_with_the_reason(word: str, state: State) -> None:
    kind = "share_memory" if word == "detach" else None
    reason = refusal(word, in_state(state, fork_kind=kind), "vm")
    if state in ALLOWED[word]:
        assert reason is None
    else:
        assert reason is not None
        assert reason.startswith(f"{verb(word).name} refused: vm is ")
        assert state in reason


def test_of_what_does_not_run_nothing_is_stopped() -> None:
    reason = refusal("stop", in_state(State.STANDBY), "vm")
    assert reason == "Stop refused: vm is in Standby: it does not run, so there is nothing to stop"


def test_only_what_holds_a_lock_can_let_go_of_it() -> None:
    reason = refusal("detach", in_state(State.RUNNING, fork_kind="copy"), "vm")
    assert reason == "Detach refused: vm is no share_memory fork: it holds no lock"


def test_a_fan_out_of_a_running_source_says_which_key_comes_first() -> None:
    reason = refusal("fan-out", in_state(State.RUNNING), "vm")
    assert reason == "Fan out refused: vm is Running: press s to put it to standby first"


def test_a_locked_source_names_its_holders_and_what_releases_it() -> None:
    held = "source-1 has 8 share_memory forks (fork-1, fork-2, +6): delete them first (d), or detach them (t)"
    assert (refusal("restore", family(), "source-1") or "").endswith(held)
    assert held in (refusal("delete", family(), "source-1", "fork-1") or "")


def test_a_locked_source_by_itself_can_be_deleted_as_its_whole_tree() -> None:
    assert refusal("delete", family(), "source-1") is None


def test_one_holder_is_spoken_of_as_one() -> None:
    reason = refusal("restore", world_of(locked_source("s", ["f"])), "s")
    assert reason == "Restore refused: s has 1 share_memory fork (f): delete it first (d), or detach it (t)"


def test_forks_of_a_locked_source_can_be_made() -> None:
    assert refusal("fork", family(), "source-1") is None
    assert refusal("fan-out", family(), "source-1") is None


def test_a_source_can_be_deleted_together_with_all_of_its_holders() -> None:
    assert refusal("delete", family(), "source-1", *FORKS) is None
    assert refusal("delete", family(), "source-1", *FORKS[1:]) is not None


@pytest.mark.parametrize("word", ON_INSTANCES)
def test_nothing_is_changed_without_a_connection_or_the_right_to(word: str) -> None:
    world = in_state(State.STANDBY)
    assert "not connected" in (refusal(word, world, "vm", connected=False) or "")
    assert "read-only" in (refusal(word, world, "vm", writable=False) or "")
    assert "no instance is selected" in (refusal(word, world) or "")
    assert "no instance is selected" in (refusal(word, world, "deleted-meanwhile") or "")


def test_looking_is_never_refused() -> None:
    assert not any(hasattr(action, "refused") for action in ACTIONS if isinstance(action, OnScreen))


def test_one_can_be_made_whatever_is_selected() -> None:
    assert refusal("create", world_of()) is None
    assert "read-only" in (refusal("create", world_of(), writable=False) or "")


ENDING = {"delete", "stop", "cancel"}


@pytest.mark.parametrize("word", sorted(set(ON_INSTANCES) - ENDING))
def test_a_busy_instance_is_left_alone(word: str) -> None:
    reason = refusal(word, in_state(State.STANDBY, operation=Operation(verb="restore")), "vm")
    assert reason is not None
    assert "restore is under way; wait for it, or cancel it (X)" in reason


@pytest.mark.parametrize("word", sorted(ENDING))
def test_what_ends_an_instance_or_what_is_done_to_it_waits_for_nothing(word: str) -> None:
    assert refusal(word, in_state(State.RUNNING, operation=Operation(verb="standby")), "vm") is None


def test_only_what_is_under_way_can_be_cancelled() -> None:
    assert refusal("cancel", in_state(State.RUNNING), "vm") == "Cancel refused: nothing is under way on vm"


def test_of_many_marked_the_first_that_refuses_is_named() -> None:
    world = world_of(instance("a"), instance("b", state=State.STOPPED), instance("c"))
    reason = refusal("standby", world, "a", "b", "c")
    assert reason is not None
    assert reason.startswith("Standby of 3 marked refused: b is Stopped")
    assert "u clears the marks" in reason


def test_unknown_names_of_holders_do_not_hide_the_lock() -> None:
    locked: Instance = instance("s", state=State.STANDBY, fork_count=2, mem_locked=True)
    assert "s has 2 share_memory forks" in (refusal("restore", world_of(locked), "s") or "")
    assert "s has 2 share_memory forks" in (refusal("delete", world_of(locked, instance("t")), "s", "t") or "")
