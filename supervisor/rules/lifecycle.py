"""The states, the verbs, and when a verb is refused. Pure."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Literal

from supervisor.errors import BadRequestError, InvalidStateError
from supervisor.models import ForkKind, ForkOptions, State
from supervisor.remedies import Remedy

Intent = Literal["create", "fork", "start", "restore"]
"""What was begun and not done. A snapshot has `snapshot_unfinished`, and a deletion the new name of the directory.

The end of a VM needs none: without its process it is Stopped."""

NAMED_HOLDERS = 5
"""How many of the forks that hold a lock a refusal names before it counts the rest."""


class Verb(StrEnum):
    """What may be asked for; all but a creation of an instance that there is."""

    CREATE = "create"
    STANDBY = "standby"
    RESTORE = "restore"
    START = "start"
    STOP = "stop"
    FORK = "fork"
    CHECKPOINT = "checkpoint"
    DETACH = "detach"
    ACCEPT = "accept"
    DELETE = "delete"


class Recovery(StrEnum):
    """What a new supervisor does with an instance that an earlier one left."""

    DISCARD = "remove it: it was being made, and nobody was told that it exists"
    LOST = "its VMM is gone: it is Stopped"
    AT_REST = "it has no VMM by its record: whatever runs of it ends"
    RUNS = "it goes on"


ALLOWED_FROM: dict[Verb, frozenset[State]] = {
    Verb.CREATE: frozenset({State.CREATED}),
    Verb.STANDBY: frozenset({State.RUNNING}),
    Verb.RESTORE: frozenset({State.STANDBY}),
    Verb.START: frozenset({State.STOPPED}),
    Verb.STOP: frozenset({State.RUNNING, State.PAUSED, State.INITIALIZING}),
    Verb.FORK: frozenset({State.STANDBY, State.STOPPED, State.RUNNING}),
    Verb.CHECKPOINT: frozenset({State.RUNNING}),
    Verb.DETACH: frozenset({State.STANDBY, State.STOPPED, State.RUNNING}),
    Verb.ACCEPT: frozenset({State.STANDBY}),
    Verb.DELETE: frozenset(State),
}

HAS_VMM = frozenset({State.INITIALIZING, State.RUNNING, State.PAUSED})
"""States of an instance that has a VMM."""

TRANSITIONS: dict[State, frozenset[State]] = {
    State.CREATED: frozenset({State.INITIALIZING, State.RUNNING}),
    State.INITIALIZING: frozenset({State.RUNNING, State.STOPPED}),
    State.RUNNING: frozenset({State.STANDBY, State.STOPPED}),
    State.PAUSED: frozenset({State.RUNNING, State.STANDBY, State.STOPPED}),
    State.SHUTDOWN: frozenset({State.STOPPED}),
    State.STOPPED: frozenset({State.INITIALIZING, State.RUNNING}),
    State.STANDBY: frozenset({State.RUNNING, State.STOPPED}),
    State.UNKNOWN: frozenset(),
}
"""What a record may say after what it says now, besides the same."""

REFUSED_WHILE_LOCKED = frozenset({Verb.RESTORE, Verb.START, Verb.DELETE})

ADVICE: dict[State, str] = {
    State.CREATED: "wait until it runs, or delete it",
    State.INITIALIZING: "wait until it is Running",
    State.RUNNING: "put it to standby or stop it first",
    State.PAUSED: "stop or delete it",
    State.SHUTDOWN: "stop or delete it",
    State.STOPPED: "start it first",
    State.STANDBY: "restore it first",
    State.UNKNOWN: "look at its state_error, and repair its record or remove its directory",
}
"""What may be done about an instance that is in the wrong state for a verb."""

ADVICE_FOR: dict[tuple[Verb, State], str] = {
    (Verb.STOP, State.STANDBY): "it does not run, so there is nothing to stop",
    (Verb.STOP, State.STOPPED): "it does not run, so there is nothing to stop",
    (Verb.RESTORE, State.RUNNING): "it runs already",
    (Verb.START, State.RUNNING): "it runs already",
    (Verb.RESTORE, State.STOPPED): "start it instead",
    (Verb.START, State.STANDBY): "restore it instead",
    (Verb.ACCEPT, State.STOPPED): "it has no memory that could be accepted",
}
"""What is to be said of one verb in place of ADVICE."""


def named(holders: Sequence[str]) -> str:
    """Return the names of the holders as one phrase, the first few of them by name."""
    shown = ", ".join(holders[:NAMED_HOLDERS])
    rest = len(holders) - NAMED_HOLDERS
    return f"{shown} and {rest} more" if rest > 0 else shown


def check(verb: Verb, name: str, state: State, holders: Sequence[str] = ()) -> None:
    """Raise InvalidStateError unless `verb` is allowed for an instance in `state` whose lock `holders` hold."""
    if holders and verb in REFUSED_WHILE_LOCKED:
        forks, them = ("share_memory forks", "them") if len(holders) > 1 else ("share_memory fork", "it")
        detach = "" if verb is Verb.DELETE else f", or detach {them}"
        raise InvalidStateError(
            f"{name}: {verb} refused: mem_locked by {len(holders)} {forks} ({named(holders)}); "
            f"delete {them} first{detach}",
            [
                {"code": "mem_locked", "name": holder, "message": f"{holder} reads its memory from {name}"}
                for holder in holders
            ],
            remedy=Remedy.CASCADE if verb is Verb.DELETE else None,
        )
    if state not in ALLOWED_FROM[verb]:
        wanted = " or ".join(sorted(ALLOWED_FROM[verb]))
        advice = ADVICE_FOR.get((verb, state), ADVICE[state])
        if holders and state is State.STANDBY and verb is not Verb.STOP:
            advice = f"fork it, or detach or delete its forks ({named(holders)}) and restore it"
        raise InvalidStateError(f"{name}: {verb} refused: it is {state}, and must be {wanted}; {advice}")


def check_transition(name: str, before: State, after: State, holders: Sequence[str] = ()) -> None:
    """Raise InvalidStateError unless a record's state may become `after`; a source whose lock is held never runs."""
    if after is not before and after not in TRANSITIONS[before]:
        raise InvalidStateError(f"{name}: it is {before} and cannot become {after}; nothing was changed")
    if holders and after in HAS_VMM:
        raise InvalidStateError(
            f"{name}: it cannot become {after}: mem_locked by {named(holders)}; delete or detach them first"
        )


def recovery(state: State, intent: Intent | None, *, alive: bool) -> Recovery:
    """Return what becomes of an instance after a crash, by its record and whether the VMM that it names is alive.

    A record is written before anything is done outside and after it: with an intent it says what was begun and how
    things stood before.
    """
    if intent in ("create", "fork"):
        return Recovery.DISCARD
    if state in HAS_VMM:
        return Recovery.RUNS if alive else Recovery.LOST
    return Recovery.AT_REST


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
            f"{name}: fork refused: a share_memory fork needs a Standby source, and a copy of what runs a Running one",
            remedy=Remedy.WITHOUT_FROM_RUNNING,
        )
    if options.share_memory and options.template_id:
        raise BadRequestError(
            f"{name}: fork refused: a share_memory fork finds its template by itself", remedy=Remedy.SHARE_MEMORY
        )
    if options.template_id and options.from_running:
        raise BadRequestError(
            f"{name}: fork refused: a template's memory is in Standby, and no copy of what runs",
            remedy=Remedy.WITHOUT_FROM_RUNNING,
        )
    check(Verb.FORK, name, state)
    if options.from_running:
        if state is not State.RUNNING:
            raise InvalidStateError(
                f"{name}: fork refused: a copy of what runs needs a Running source, and it is {state}",
                remedy=Remedy.WITHOUT_FROM_RUNNING,
            )
    elif state is State.RUNNING:
        raise InvalidStateError(
            f"{name}: fork refused: it is Running; put it to standby first", remedy=Remedy.FROM_RUNNING
        )
    if (options.share_memory or options.template_id) and state is not State.STANDBY:
        advice = "start it, then put it to standby" if state is State.STOPPED else "put it to standby first"
        raise InvalidStateError(
            f"{name}: fork refused: a share_memory fork needs a Standby source, and it is {state}; {advice}"
        )
    if options.target_state == "Standby" and state is State.STOPPED:
        raise InvalidStateError(
            f"{name}: fork refused: it is Stopped, so its fork has no snapshot for Standby; ask for Stopped or Running"
        )


def check_backend(verb: Verb, name: str, huge_pages: bool, backend: str | None) -> None:
    """Raise InvalidStateError where a snapshot's memory cannot come from this backend.

    Firecracker refuses to map a mem-file for memory of hugetlbfs (docs/hugepages.md).
    """
    if huge_pages and backend != "uffd":
        raise InvalidStateError(
            f"{name}: {verb} refused: its memory is of huge pages, which Firecracker takes from a page server only",
            remedy=Remedy.PAGE_SERVER,
        )
