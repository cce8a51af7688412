"""Alarms: which events begin and end one, what is left of it, and that none of it costs more than it changes."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.model.alarms import HOST, OVER_LIMIT, Alarm, Alarms
from forktui.model.conditions import LOW_BYTES, OF_INSTANCES, Amount, Kind, of_instance, waits_for_pager
from forktui.model.reducing import reduce, reduce_all
from forktui.model.watch import DEAD_PAGER
from forktui.model.world import World
from supervisor.models import (
    Activity,
    Event,
    Guest,
    HostStatistics,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    InstanceStatistics,
    Level,
    Reset,
    State,
    Statistics,
    TemplateChanged,
    TemplateDeleted,
)
from tests.harness.told_hosts import BEGIN, fork_of, instance, locked_source, pager, reset, sampled, world_of

GIB = 1 << 30
IDS = ["source", "i1", "i2", "i3"]


def at(seconds: float) -> datetime:
    return BEGIN + timedelta(seconds=seconds)


def after(*events: Event, world: World | None = None) -> World:
    """The world after these events, one by one."""
    world = world or World()
    for event in events:
        world = reduce(world, event)
    return world


def alarm(message: str, level: Level = "alarm", second: float = 1, **more: object) -> Activity:
    return Activity.model_validate({"at": at(second), "level": level, "message": message, **more})


def family() -> list[Instance]:
    """A source, two forks that run, and one that rests."""
    forks = [fork_of("source", name, template_id="t") for name in ("i1", "i2")]
    rests = fork_of("source", "i3", template_id="t", state=State.STANDBY)
    return [locked_source("source", ["i1", "i2", "i3"]), *forks, rests]


def listed(world: World) -> list[tuple[Kind, str, bool]]:
    return [(one.kind, one.name, one.holds) for one in world.alarms.listed(99)]


# What begins an alarm, and what ends it


def test_a_vm_that_died_is_one_since_it_ended_until_it_runs_again() -> None:
    died = instance("vm", state=State.STOPPED, died=True, exit_message="killed by SIGKILL", stopped_at=at(7))
    world = after(reset([instance("vm")]), InstanceChanged(instance=died))
    (found,) = world.alarms.listed(9)
    assert (found.kind, found.what, found.since) == (Kind.DIED, "its VMM died: killed by SIGKILL", at(7))
    assert world.alarms.marks["vm"] == (Kind.DIED,)
    world = after(sampled(9), InstanceChanged(instance=instance("vm")), world=world)
    (over,) = world.alarms.listed(9)
    assert (over.holds, over.until, over.number) == (False, at(9), found.number)


def test_one_that_was_stopped_is_none() -> None:
    stopped = instance("vm", state=State.STOPPED, exit_message="stopped on request", exit_code=0)
    assert listed(after(reset([instance("vm")]), InstanceChanged(instance=stopped))) == []


@pytest.mark.parametrize(
    ("counters", "kind", "mended"),
    [
        ({"oldest_fault_ms": 1000.0, "stalled": "stuck"}, Kind.STUCK, {"oldest_fault_ms": 999.0}),
        ({"oldest_fault_ms": 1000.0, "stalled": "stuck"}, Kind.STUCK, {"oldest_fault_ms": 1e4, "stalled": "slow"}),
        ({"guest": Guest(corrupt="0x1000")}, Kind.CORRUPT, {"guest": Guest(passes=1)}),
        ({"copy_errors": 1}, Kind.PAGES, {}),
    ],
)
def test_what_counters_show_is_one_as_long_as_they_do(
    counters: dict[str, object], kind: Kind, mended: dict[str, object]
) -> None:
    def told(seconds: float, fields: dict[str, object]) -> Statistics:
        return sampled(seconds, InstanceStatistics.model_validate({"id": "vm", **fields}))

    world = after(reset([instance("vm")]), told(3, counters), told(4, counters))
    (found,) = world.alarms.listed(9)
    assert (found.kind, found.since, found.holds, found.times) == (kind, at(3), True, 1)
    world = after(told(5, mended), world=world)
    assert listed(world) == [(kind, "vm", False)]
    again = after(told(6, counters), world=world)
    (found,) = again.alarms.listed(9)
    assert (found.holds, found.times, found.since) == (True, 2, at(6))


def test_a_guest_without_a_vmm_waits_for_nothing() -> None:
    waits = sampled(1, InstanceStatistics(id="vm", oldest_fault_ms=5000, stalled="stuck", copy_errors=1))
    world = after(reset([instance("vm")]), waits)
    assert len(world.alarms.listed(9)) == 2
    world = after(InstanceChanged(instance=instance("vm", state=State.STOPPED)), world=world)
    assert not any(holds for _, _, holds in listed(world))


def test_a_record_set_aside_is_told_from_what_else_is_out_of_order() -> None:
    world = world_of(
        instance("torn", state=State.UNKNOWN, state_error="instance.json: not JSON"),
        instance("mute", state_error="its page faults are not answered"),
    )
    assert set(listed(world)) == {(Kind.ASIDE, "torn", True), (Kind.ERROR, "mute", True)}
    assert all(one.earlier for one in world.alarms.listed(9))


def test_a_dead_page_server_is_an_alarm_of_its_source_while_forks_that_run_wait() -> None:
    alive = after(reset(family()), TemplateChanged(template=pager(pid=9)))
    assert listed(alive) == []
    world = after(sampled(2), TemplateChanged(template=pager(pid=None)), world=alive)
    (found,) = world.alarms.listed(9)
    assert (found.kind, found.name, found.what, found.since) == (Kind.PAGER, "source", DEAD_PAGER, at(2))
    assert world.change.shown >= {"source", "i1", "i2"}
    taken_over = after(sampled(3), TemplateChanged(template=pager(pid=10)), world=world)
    assert listed(taken_over) == [(Kind.PAGER, "source", False)]
    assert listed(after(TemplateChanged(template=pager(10, restarts=1)), world=taken_over)) == listed(taken_over)
    for gone in ("i1", "i2"):
        world = after(InstanceChanged(instance=instance(gone, state=State.STOPPED, source_id="source")), world=world)
    assert listed(world) == [(Kind.PAGER, "source", False)]


def test_one_that_no_fork_waits_for_is_none() -> None:
    rest = [one.model_copy(update={"state": State.STANDBY, "vmm_pid": None}) for one in family()]
    world = after(reset(rest), TemplateChanged(template=pager(pid=9)), TemplateChanged(template=pager(pid=None)))
    assert listed(world) == []
    world = after(reset(family()), TemplateChanged(template=pager(pid=None)), TemplateDeleted(id="t"))
    assert not any(holds for _, _, holds in listed(world))


def test_one_that_was_replaced_while_nobody_listened_is_told() -> None:
    world = after(reset(family(), templates=[pager(9)]), reset(family(), templates=[pager(10, restarts=1)]))
    assert listed(world) == [(Kind.PAGER, "source", False)]
    assert listed(after(reset(family(), templates=[pager(9)]), reset(family(), templates=[pager(9)]))) == []


@pytest.mark.parametrize("kind", [Kind.MEMORY, Kind.DISK])
def test_a_host_is_low_below_a_twentieth_and_has_enough_with_some_more(kind: Kind) -> None:
    def left(bytes_left: int) -> Statistics:
        what = kind.value
        host = HostStatistics.model_validate({f"{what}_total_bytes": 16 * GIB, f"{what}_available_bytes": bytes_left})
        return sampled(1, host=host)

    low = 16 * GIB // 20
    world = after(left(low + 1))
    assert listed(world) == []
    world = after(left(low - 1), world=world)
    assert listed(world) == [(kind, "host", True)]
    assert world.alarms.open[kind][HOST].concerns == HOST
    world = after(left(low + 1), world=world)
    assert listed(world) == [(kind, "host", True)]
    assert listed(after(left(low * 5 // 4 + 1), world=world)) == [(kind, "host", False)]


def test_a_large_host_is_not_low_with_gigabytes_left_and_one_that_says_nothing_never() -> None:
    assert not Amount(1 << 40, LOW_BYTES).is_low(before=False)
    assert Amount(1 << 40, LOW_BYTES - 1).is_low(before=False)
    assert not Amount(0, 0).is_low(before=True)


@pytest.mark.parametrize(
    ("told", "kind"),
    [
        (alarm("vm: something is wrong", instance_id="vm"), Kind.TOLD),
        (alarm("vm: fan-out refused", "warning", instance_id="vm", code="insufficient_resources"), Kind.REFUSED),
        (alarm("vm: layer mem.0 was written", instance_id="vm", code="layer_changed"), Kind.LAYER),
        (alarm("vm: it is shown too", instance_id="vm", shown=True), None),
        (alarm("vm: stopped", "info", instance_id="vm"), None),
        (alarm("vm: its state is invalid", "warning", instance_id="vm", code="invalid_state"), None),
    ],
)
def test_what_is_told_once_is_one_until_it_is_acknowledged(told: Activity, kind: Kind | None) -> None:
    world = after(reset([instance("vm")]), told)
    assert listed(world) == ([(kind, "vm", False)] if kind else [])
    for one in world.alarms.listed(9):
        assert f"vm: {one.what}" == told.message
        assert one.since == at(1)
    assert listed(after(reset([instance("vm")]), world=world)) == listed(world)
    assert listed(world.acknowledge()) == []


def test_the_same_told_again_is_counted_and_another_is_not() -> None:
    world = after(*(alarm(words, second=n) for n, words in enumerate(["a", "b", "a", "a"])))
    assert [(one.what, one.times, one.since) for one in world.alarms.listed(9)] == [("a", 3, at(3)), ("b", 1, at(1))]


def test_whom_an_alarm_concerns_is_named_also_after_it_has_gone() -> None:
    world = after(reset([instance("vm")]), alarm("vm: x", instance_id="vm"), InstanceDeleted(id="vm"))
    assert listed(world) == [(Kind.TOLD, "vm", False)]
    assert listed(after(alarm("gone: y", instance_id="0123456789"), world=World()))[0][1] == "(deleted) 01234567"


# Acknowledging


def test_what_is_acknowledged_holds_on_and_is_gone_with_its_cause() -> None:
    stuck = sampled(1, InstanceStatistics(id="vm", oldest_fault_ms=2000, stalled="stuck"))
    world = after(reset([instance("vm")]), stuck).acknowledge()
    assert world.change.shown == {"vm"}
    assert (world.alarms.unacknowledged, world.alarms.holding(Kind.STUCK)) == (0, 1)
    assert world.alarms.marks["vm"] == (Kind.STUCK,)
    world = after(stuck, reset([instance("vm")], [InstanceStatistics(id="vm", stalled="stuck")]), world=world)
    assert (world.alarms.unacknowledged, world.alarms.holding(Kind.STUCK)) == (0, 1)
    world = after(sampled(2, InstanceStatistics(id="vm")), world=world)
    assert world.alarms == Alarms(count=world.alarms.count)


def test_one_is_acknowledged_and_the_others_stay() -> None:
    world = after(reset(family()), *(alarm(f"{name}: x", instance_id=name) for name in ("i1", "i2", "i3")))
    world = world.acknowledge([one for one in world.alarms.listed(9) if one.name == "i2"])
    assert {one.name for one in world.alarms.listed(9)} == {"i1", "i3"}
    assert set(world.alarms.marks) == {"i1", "i3"}
    assert world.acknowledge([Alarm(Kind.TOLD, "i2", "i2", "x", None)]).alarms == world.alarms


def test_words_that_change_leave_it_acknowledged() -> None:
    def dropped(size: int) -> InstanceChanged:
        return InstanceChanged(instance=instance("vm", state_error=f"{size} bytes were dropped"))

    world = after(reset([]), dropped(1)).acknowledge()
    world = after(dropped(2), world=world)
    (found,) = world.alarms.listed(9)
    assert (found.acknowledged, found.what) == (True, "2 bytes were dropped")


# What is said of many


def test_groups_are_the_worst_first_with_some_names() -> None:
    many = [instance(f"i{n}") for n in range(100)]
    stuck = [InstanceStatistics(id=one.id, oldest_fault_ms=2000, stalled="stuck") for one in many]
    world = after(reset(many, stuck), alarm("x"), sampled(1, InstanceStatistics(id="i7", guest=Guest(corrupt="0"))))
    groups = world.alarms.groups(3)
    assert [(kind, count, len(some)) for kind, count, some in groups] == [
        (Kind.CORRUPT, 1, 1),
        # One of them has been answered.
        (Kind.STUCK, 100, 3),
        (Kind.TOLD, 1, 1),
    ]
    assert world.alarms.unacknowledged == 102
    assert len(world.alarms.listed(10)) == 10


def test_those_that_are_over_are_bounded_and_the_oldest_go_with_their_marks() -> None:
    names = [f"i{n}" for n in range(OVER_LIMIT + 5)]
    told = [alarm(f"{name}: x", instance_id=name) for name in names]
    world = reduce_all(world_of(*map(instance, names)), told)
    assert [one.name for one in world.alarms.over] == names[5:]
    assert set(world.alarms.marks) == set(names[5:])


# Any events, in any order, by themselves or together

conditions = st.fixed_dictionaries(
    {},
    optional={
        "died": st.booleans(),
        "state_error": st.sampled_from([None, "a", "b"]),
        "state": st.sampled_from([State.RUNNING, State.STOPPED, State.UNKNOWN]),
    },
)
instances = st.builds(
    lambda name, fields: (
        locked_source("source", ["i1"]) if name == "source" else fork_of("source", name, template_id="t", **fields)
    ),
    st.sampled_from(IDS),
    conditions,
)
counters = st.builds(
    InstanceStatistics,
    id=st.sampled_from(IDS),
    stalled=st.sampled_from([None, "slow", "stuck"]),
    copy_errors=st.integers(0, 1),
    guest=st.sampled_from([None, Guest(), Guest(corrupt="0x1")]),
)
templates = st.builds(pager, st.sampled_from([None, 9, 10]), st.integers(0, 1))
hosts = st.builds(
    HostStatistics,
    memory_total_bytes=st.just(100),
    memory_available_bytes=st.integers(0, 8),
    disk_total_bytes=st.just(100),
    disk_available_bytes=st.integers(4, 7),
)
events = st.one_of(
    st.builds(InstanceChanged, instance=instances),
    st.builds(InstanceDeleted, id=st.sampled_from(IDS)),
    st.builds(lambda some, host: sampled(1, *some, host=host), st.lists(counters, max_size=3), hosts),
    st.builds(TemplateChanged, template=templates),
    st.just(TemplateDeleted(id="t")),
    st.builds(lambda name: alarm(f"{name}: x", instance_id=name), st.sampled_from([*IDS, None])),
    st.builds(
        lambda some, host, template: Reset(
            snapshot=reset({one.id: one for one in some}.values(), templates=template).snapshot.model_copy(
                update={"host": host}
            )
        ),
        st.lists(instances, max_size=4),
        hosts,
        st.lists(templates, max_size=1),
    ),
)


def held(world: World) -> set[tuple[Kind, str]]:
    """What of the kinds that are no matter of what was before is wrong in a world, looked for from the beginning."""
    found = {
        (kind, one.id) for one in world.instances.values() for kind in of_instance(one, world.statistics.get(one.id))
    }
    for template in world.templates.values():
        if waits_for_pager(template, (world.instances[one] for one in world.forks_of(template.instance_id))):
            found.add((Kind.PAGER, template.instance_id))
    return found


def holding(alarms: Alarms) -> dict[tuple[Kind, str], Alarm]:
    both = (alarms.open, alarms.known)
    return {(kind, whom): one for kinds in both for kind, there in kinds.items() for whom, one in there.items()}


@given(st.lists(st.tuples(events, st.booleans()), max_size=30))
def test_what_holds_is_what_is_wrong_after_any_events(script: list[tuple[Event, bool]]) -> None:
    world = World()
    for event, acknowledges in script:
        world = reduce(world, event)
        if acknowledges:
            world = world.acknowledge(world.alarms.listed(1))
        holds = holding(world.alarms)
        assert {key for key in holds if key[0] in OF_INSTANCES or key[0] is Kind.PAGER} == held(world)
        assert all(one.holds and (one.kind, one.concerns) == key for key, one in holds.items())
        assert not any(one.holds or one.acknowledged for one in world.alarms.over)
        assert len(world.alarms.over) <= OVER_LIMIT
        about = {whom for _, whom in holds} | {one.concerns for one in world.alarms.over}
        assert set(world.alarms.marks) == about
        for whom, kinds in world.alarms.marks.items():
            assert set(kinds) == {one.kind for one in (*holds.values(), *world.alarms.over) if one.concerns == whom}
        assert all(there for kinds in (world.alarms.open, world.alarms.known) for there in kinds.values())


@given(st.lists(events, max_size=20), st.integers(1, 20))
def test_events_that_come_together_raise_the_alarms_that_they_raise_one_by_one(
    script: Sequence[Event], at_once: int
) -> None:
    together = World()
    for begin in range(0, len(script), at_once):
        together = reduce_all(together, script[begin : begin + at_once])
    assert together.alarms == after(*script).alarms


@given(st.lists(events, max_size=15), events)
def test_an_event_that_says_nothing_new_raises_nothing_new(script: list[Event], last: Event) -> None:
    once = after(*script, last)
    twice = reduce(once, last)
    if not isinstance(last, Activity):
        assert {(one.same, one.times) for one in once.alarms.listed(999)} == {
            (one.same, one.times) for one in twice.alarms.listed(999)
        }


def test_an_event_that_concerns_no_alarm_leaves_them_the_same_object() -> None:
    world = after(reset([instance("a"), instance("b")]), alarm("a: x", instance_id="a"))
    for event in (sampled(2, InstanceStatistics(id="b", faults=3)), InstanceChanged(instance=instance("b", vcpus=2))):
        assert reduce(world, event).alarms is world.alarms


def test_the_time_is_that_of_the_last_event_that_had_one() -> None:
    told = reset([instance("a", state_error="x")])
    world = after(Reset(snapshot=told.snapshot.model_copy(update={"at": at(5)})))
    assert [(one.since, one.earlier) for one in world.alarms.listed(9)] == [(at(5), True)]
    world = after(sampled(6), InstanceChanged(instance=instance("b", state_error="y")), world=world)
    newest = world.alarms.listed(9)[0]
    assert (newest.since, newest.earlier) == (at(6), False)
