"""The states, the verbs, and when a verb is refused. Pure."""

from collections.abc import Sequence
from enum import StrEnum

from supervisor.errors import BadRequestError, InvalidStateError
from supervisor.models import ForkKind, ForkOptions, State

NAMED_HOLDERS = 5
"""How many of the forks that hold a lock a refusal names before it counts the rest."""


class Verb(StrEnum):
    """What may be asked of an instance that exists."""

    STANDBY = "standby"
    RESTORE = "restore"
    START = "start"
    STOP = "stop"
    FORK = "fork"
    CHECKPOINT = "checkpoint"
    DETACH = "detach"
    DELETE = "delete"


ALLOWED_FROM: dict[Verb, frozenset[State]] = {
    Verb.STANDBY: frozenset({State.RUNNING}),
    Verb.RESTORE: frozenset({State.STANDBY}),
    Verb.START: frozenset({State.STOPPED}),
    Verb.STOP: frozenset({State.RUNNING, State.PAUSED, State.INITIALIZING}),
    Verb.FORK: frozenset({State.STANDBY, State.STOPPED, State.RUNNING}),
    Verb.CHECKPOINT: frozenset({State.RUNNING}),
    Verb.DETACH: frozenset({State.STANDBY, State.STOPPED, State.RUNNING}),
    Verb.DELETE: frozenset(State),
}

REFUSED_WHILE_LOCKED = frozenset({Verb.RESTORE, Verb.START, Verb.DELETE})

REMEDY: dict[State, str] = {
    State.CREATED: "wait until it runs, or delete it",
    State.INITIALIZING: "wait until it is Running",
    State.RUNNING: "put it to standby or stop it first",
    State.PAUSED: "stop or delete it",
    State.SHUTDOWN: "stop or delete it",
    State.STOPPED: "start it first",
    State.STANDBY: "restore it first",
    State.UNKNOWN: "look at its state_error and log, then delete it",
}


def named(holders: Sequence[str]) -> str:
    """Return the names of the holders as one phrase, the first few of them by name."""
    shown = ", ".join(holders[:NAMED_HOLDERS])
    rest = len(holders) - NAMED_HOLDERS
    return f"{shown} and {rest} more" if rest > 0 else shown


def check(verb: Verb, name: str, state: State, holders: Sequence[str] = ()) -> None:
    """Raise InvalidStateError unless `verb` is allowed for an instance in `state` whose lock `holders` hold."""
    if holders and verb in REFUSED_WHILE_LOCKED:
        forks, them = ("share_memory forks", "them") if len(holders) > 1 else ("share_memory fork", "it")
        whole = f", or give cascade=true to delete {them} too" if verb is Verb.DELETE else f", or detach {them}"
        raise InvalidStateError(
            f"{name}: {verb} refused: mem_locked by {len(holders)} {forks} ({named(holders)}); "
            f"delete {them} first{whole}",
            [
                {"code": "mem_locked", "name": holder, "message": f"{holder} reads its memory from {name}"}
                for holder in holders
            ],
        )
    if state not in ALLOWED_FROM[verb]:
        wanted = " or ".join(sorted(ALLOWED_FROM[verb]))
        raise InvalidStateError(f"{name}: {verb} refused: it is {state}, and must be {wanted}; {REMEDY[state]}")


def check_detach(name: str, state: State, kind: ForkKind | None) -> None:
    """Raise InvalidStateError for an instance that holds no lock, or whose state forbids to let go of it."""
    if kind != "share_memory":
        raise InvalidStateError(
            f"{name}: detach refused: it is no share_memory fork and holds no lock; there is nothing to let go of"
        )
    check(Verb.DETACH, name, state)


def check_fork(name: str, state: State, options: ForkOptions) -> None:
    """Raise BadRequestError for options that exclude each other, InvalidStateError where the state forbids them."""
    if options.share_memory and options.from_running:
        raise BadRequestError(
            f"{name}: fork refused: share_memory needs a Standby source, from_running a Running one; give one"
        )
    if options.share_memory and options.template_id:
        raise BadRequestError(f"{name}: fork refused: template_id implies shared memory; give it without share_memory")
    if options.template_id and options.from_running:
        raise BadRequestError(
            f"{name}: fork refused: a template's memory is in Standby, so template_id excludes from_running"
        )
    check(Verb.FORK, name, state)
    if options.from_running:
        if state is not State.RUNNING:
            raise InvalidStateError(
                f"{name}: fork refused: from_running needs a Running source, and it is {state}; leave from_running out"
            )
    elif state is State.RUNNING:
        raise InvalidStateError(
            f"{name}: fork refused: it is Running; put it to standby first, or give from_running=true for a copy"
        )
    if (options.share_memory or options.template_id) and state is not State.STANDBY:
        raise InvalidStateError(
            f"{name}: fork refused: share_memory needs a Standby source, and it is {state}; put it to standby first"
        )
    if options.target_state == "Standby" and state is State.STOPPED:
        raise InvalidStateError(
            f"{name}: fork refused: it is Stopped, so its fork has no snapshot for Standby; ask for Stopped or Running"
        )


def fork_target(state: State, options: ForkOptions) -> State:
    """Return the state that a fork ends in: the one asked for, or the source's."""
    return State(options.target_state) if options.target_state else state
