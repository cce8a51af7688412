"""The columns of the fork tree: what each shows, how wide it is, what it is sorted by. A column is one object. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from forktui.model.fault_rates import fault_rate, fault_rates
from forktui.model.sorting import BY_CREATION, Measure
from forktui.model.world import World
from forktui.text.quantities import count, mebibytes, numbers_apart, rate, rough_age
from forktui.view.alarms import mark
from forktui.view.glyphs import UNICODE, Glyphs
from forktui.view.styled_lines import Ink, Piece
from supervisor.models import ExitReason, GuestSays, Instance, InstanceStatistics, State

STATE_INKS: dict[State, Ink] = {
    State.CREATED: "waiting",
    State.INITIALIZING: "waiting",
    State.RUNNING: "running",
    State.PAUSED: "waiting",
    State.SHUTDOWN: "waiting",
    State.STOPPED: "stopped",
    State.STANDBY: "standby",
    State.UNKNOWN: "broken",
}

DEATHS: Final[Mapping[ExitReason | None, str]] = {"panic": "panic", "triple_fault": "fault", "out_of_memory": "memory"}
"""How some deaths are called in the state's column; all others are `died`."""
OWN_ENDS: Final[Mapping[ExitReason | None, str]] = {"reboot": "reboot", "shutdown": "off"}
"""Ends that a guest wanted."""
MAYBE: Final[Mapping[GuestSays, str]] = {"panic": "panic?", "reboot": "reboot?", "halt": "halted?"}
"""What a console says of a guest whose VM goes on."""

_COUNTED_WIDTH = 7
"""What is left of the state's column beside the sign for what is under way."""

_NO_VMM_STATES = frozenset({State.CREATED, State.STOPPED, State.STANDBY})


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of fixed width."""

    word: str
    """What it is called where it is chosen, or sorted by."""
    title: str
    says: str
    width: int
    rank: int
    """What has rank 0 gives way last on a narrow terminal."""
    cell: Callable[[World, Instance, Glyphs], Piece]
    measure: Measure
    numeric: bool = True
    amount: Callable[[Any], str] = str
    """A sum of it in words."""
    applies: Callable[[World], bool] = lambda world: True
    """Whether it has anything to show; else it is there only where it is asked for."""


def _state(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    operation = instance.operation
    if operation is not None:
        counted = f"{operation.done}/{operation.total}"
        if operation.total is not None and len(counted) > _COUNTED_WIDTH:
            counted = f"{100 * operation.done // max(operation.total, 1)}%"
        return f"{glyphs.working} {operation.verb if operation.total is None else counted}", "waiting"
    if instance.unready:
        # A guest that runs, and is not what is waited for yet.
        return f"{glyphs.working} unready", "waiting"
    if instance.died:
        return f"{glyphs.died} {DEATHS.get(instance.exit_reason, 'died')}", "broken"
    said = world.statistics_of(instance.id).last_words
    if said is not None and instance.vmm_pid is not None:
        return f"{glyphs.states[instance.state]} {MAYBE[said.says]}", "warning"
    if instance.state is State.STOPPED and instance.exit_reason in OWN_ENDS:
        return f"{glyphs.states[instance.state]} {OWN_ENDS[instance.exit_reason]}", "stopped"
    return f"{glyphs.states[instance.state]} {instance.state}", STATE_INKS[instance.state]


def _badge(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    found = mark(world, instance)
    if found is not None and found[1] == "alarm":
        # Without what is around it elsewhere: capitals are what holds.
        return found[0].strip(), "alarm"
    if instance.mem_locked:
        return f"{glyphs.lock} locked", "standby"
    if instance.recording:
        return f"{glyphs.record} rec", "notice"
    # What is over hides nothing that is so.
    return (found[0].strip("()").lower(), found[1]) if found is not None else ("", "plain")


def _forks(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return (count(instance.fork_count), "strong") if instance.fork_count else (glyphs.none, "guide")


def _counter(amount: str, instance: Instance, glyphs: Glyphs, ink: Ink) -> Piece:
    """A number of pages, which only a VM whose faults a page server answers has."""
    if amount != "0":
        return amount, ink
    served = instance.memory_backend == "uffd" and instance.state not in _NO_VMM_STATES
    return ("0", "muted") if served else (glyphs.none, "guide")


def _fault_rate(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _counter(rate(fault_rate(world, instance.id)), instance, glyphs, "faulted")


def _faults(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _counter(count(world.statistics_of(instance.id).faults), instance, glyphs, "faulted")


def _prefetched(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _counter(count(world.statistics_of(instance.id).prefetched_pages), instance, glyphs, "prefetched")


def _residual(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _counter(count(world.statistics_of(instance.id).residual_faults), instance, glyphs, "faulted")


def _private(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _memory(world.statistics_of(instance.id).private_bytes, glyphs)


def _shared(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return _memory(world.statistics_of(instance.id).shared_bytes, glyphs)


def _memory(size_bytes: int, glyphs: Glyphs) -> Piece:
    return (mebibytes(size_bytes), "plain") if size_bytes else (glyphs.none, "guide")


def _passes(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    guest = world.statistics_of(instance.id).guest
    if guest is None:
        return glyphs.none, "guide"
    return count(guest.passes), "running" if guest.passes else "muted"


def _backend(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return (instance.memory_backend, "plain") if instance.memory_backend else (glyphs.none, "guide")


def _hypervisor(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    return {"firecracker": "fc", "embedded": "emb"}[instance.hypervisor], "muted"


def _age(world: World, instance: Instance, glyphs: Glyphs) -> Piece:
    # Of a directory that cannot be read it is not known: models.Instance has 1970 there.
    if world.statistics_at is None or not instance.created_at.timestamp():
        return glyphs.none, "guide"
    return rough_age((world.statistics_at - instance.created_at).total_seconds()), "muted"


def _word(value: Callable[[Instance], str | None]) -> Measure:
    return Measure(lambda world: value)


def _counters(value: Callable[[InstanceStatistics], int | None]) -> Measure:
    """Something that statistics tell."""
    return Measure(lambda world: lambda one: value(world.statistics_of(one.id)), falling=True, counted=True, sums=True)


def _rates(world: World) -> Callable[[Instance], float]:
    rates = fault_rates(world)
    return lambda one: rates.get(one.id, 0.0)


def _passes_of(counters: InstanceStatistics) -> int | None:
    return None if counters.guest is None else counters.guest.passes


def _badges(world: World) -> Callable[[Instance], int]:
    """What is wrong, then what is locked, what is recorded, and what was wrong."""
    urgency = {"alarm": 4, "standby": 3, "notice": 2, "warning": 1, "plain": 0}
    return lambda one: urgency[_badge(world, one, UNICODE)[1]]


NAME: Final = Column(
    word="name",
    title="instance",
    says="the instance's name",
    width=0,
    rank=0,
    cell=lambda world, one, glyphs: (one.name, "plain"),
    measure=Measure(lambda world: lambda one: numbers_apart(one.name)),
    numeric=False,
)
"""The first, which has the width that the others leave, and is always there."""

COLUMNS: Final[tuple[Column, ...]] = (
    Column(
        word="state", title="state", says="its state, or what is under way", width=9, rank=0, cell=_state,
        measure=_word(lambda one: one.state.value), numeric=False,
    ),
    Column(
        word="lock", title="lock", says="locked by forks, recording, or what is wrong", width=8, rank=1, cell=_badge,
        measure=Measure(_badges, falling=True, counted=True), numeric=False,
    ),
    Column(
        word="forks", title="forks", says="forks that depend on it", width=5, rank=1, cell=_forks,
        measure=Measure(lambda world: lambda one: one.fork_count, falling=True, sums=True), amount=count,
    ),
    Column(
        word="faults/s", title="faults/s", says="page faults a second, over two seconds", width=8, rank=2,
        cell=_fault_rate, measure=Measure(_rates, falling=True, counted=True, timed=True, sums=True), amount=rate,
    ),
    Column(
        word="faults", title="faults", says="page faults since its VMM began", width=6, rank=11, cell=_faults,
        measure=_counters(lambda one: one.faults), amount=count,
    ),
    Column(
        word="prefetch", title="prefetch", says="pages that were there before it asked", width=8, rank=3,
        cell=_prefetched, measure=_counters(lambda one: one.prefetched_pages), amount=count,
    ),
    Column(
        word="residual", title="residual", says="page faults after the prefetch", width=8, rank=4, cell=_residual,
        measure=_counters(lambda one: one.residual_faults), amount=count,
    ),
    Column(
        word="passes", title="passes", says="how often a pagewalker has verified its memory", width=6, rank=10,
        cell=_passes, measure=_counters(_passes_of), amount=count, applies=lambda world: world.sums.walkers > 0,
    ),
    Column(
        word="private", title="priv MiB", says="memory of its own, in MiB", width=8, rank=5, cell=_private,
        measure=_counters(lambda one: one.private_bytes), amount=mebibytes,
    ),
    Column(
        word="shared", title="shr MiB", says="memory that it shares with others, in MiB", width=7, rank=7,
        cell=_shared, measure=_counters(lambda one: one.shared_bytes), amount=mebibytes,
    ),
    Column(
        word="age", title="age", says="since it was made", width=4, rank=6, cell=_age, measure=BY_CREATION,
    ),
    Column(
        word="backend", title="backend", says="who answers for its memory: uffd or file", width=7, rank=8,
        cell=_backend, measure=_word(lambda one: one.memory_backend), numeric=False,
    ),
    Column(
        word="vmm", title="vmm", says="Firecracker (fc) or the embedded one (emb)", width=3, rank=9,
        cell=_hypervisor, measure=_word(lambda one: one.hypervisor), numeric=False,
    ),
)  # fmt: skip

BY_WORD: Final = {column.word: column for column in (NAME, *COLUMNS)}
