"""The world: events reduce to what the supervisor has, and a forest of any shape becomes rows."""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forktui.model.faults import FAULT_HISTORY_LIMIT, FaultSample, rates_over_time
from forktui.model.filter import filter_of
from forktui.model.forest import View, descendants, rows
from forktui.model.reducing import reduce
from forktui.model.sorting import Sort
from forktui.model.world import ACTIVITY_LIMIT, World, totals
from forktui.view.columns import BY_WORD
from supervisor.models import (
    Activity,
    Event,
    Guest,
    HostStatistics,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    InstanceStatistics,
    State,
    Statistics,
    Template,
    TemplateChanged,
    TemplateDeleted,
)
from tests.harness.told_hosts import BEGIN, fork_of, instance, locked_source, reset, world_of

IDS = [f"i{number}" for number in range(6)]


def after(events: Sequence[Event], world: World | None = None) -> World:
    """The world after all of them."""
    world = world or World()
    for event in events:
        world = reduce(world, event)
    return world


def sampled(seconds: float, *counters: InstanceStatistics) -> Statistics:
    """A Statistics event some seconds after BEGIN."""
    at = BEGIN + timedelta(seconds=seconds)
    return Statistics(at=at, clock=seconds, instances=counters, host=HostStatistics())


def template(template_id: str, source: str) -> Template:
    """A template of a source."""
    return Template(id=template_id, instance_id=source, size_bytes=1 << 20, page_size=4096, fork_count=1, layers=1)


# What a supervisor may publish; `Supervisor` beside it is the oracle: the state that the events are about.
changes = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from(IDS), st.sampled_from(list(State))),
        st.tuples(st.just("delete"), st.sampled_from(IDS), st.none()),
        st.tuples(st.just("count"), st.sampled_from(IDS), st.integers(0, 9)),
        st.tuples(st.just("template"), st.sampled_from(IDS), st.none()),
        st.tuples(st.just("untemplate"), st.sampled_from(IDS), st.none()),
    ),
    max_size=40,
)


def publish(
    script: Sequence[tuple[str, str, object]],
) -> tuple[list[Event], dict[str, Instance], dict[str, Template], dict[str, InstanceStatistics]]:
    """The events of a script, and the instances, templates and counters that there are at its end."""
    instances: dict[str, Instance] = {}
    templates: dict[str, Template] = {}
    counters: dict[str, InstanceStatistics] = {}
    events: list[Event] = [reset([])]
    for step, (what, name, value) in enumerate(script):
        if what == "put":
            instances[name] = instance(name, state=value)
            events.append(InstanceChanged(instance=instances[name]))
        elif what == "delete":
            instances.pop(name, None)
            counters.pop(name, None)
            events.append(InstanceDeleted(id=name))
        elif what == "count" and isinstance(value, int):
            found = InstanceStatistics(id=name, faults=value)
            if name in instances:
                counters[name] = found
            events.append(sampled(step, found))
        elif what == "template":
            templates[name] = template(name, name)
            events.append(TemplateChanged(template=templates[name]))
        else:
            templates.pop(name, None)
            events.append(TemplateDeleted(id=name))
    return events, instances, templates, counters


@given(changes)
def test_the_events_add_up_to_what_the_supervisor_has(script: list[tuple[str, str, object]]) -> None:
    events, instances, templates, counters = publish(script)
    world = after(events)
    assert (dict(world.instances), dict(world.templates), dict(world.statistics)) == (instances, templates, counters)


@given(changes, changes)
def test_a_reset_forgets_everything_before_it(
    before: list[tuple[str, str, object]], later: list[tuple[str, str, object]]
) -> None:
    fresh = after(publish(later)[0])
    used = after(publish(later)[0], after(publish(before)[0]))
    assert (used.instances, used.templates, used.statistics) == (fresh.instances, fresh.templates, fresh.statistics)


def test_a_reset_keeps_the_activities_which_no_snapshot_repeats() -> None:
    activity = Activity(at=BEGIN, level="info", message="before")
    assert after([activity, reset([])]).activities == (activity,)


def test_a_deletion_takes_nothing_else_along() -> None:
    activity = Activity(at=BEGIN, level="info", message="kept")
    before = after([reset([instance("a"), instance("b")]), activity, TemplateChanged(template=template("t", "a"))])
    world = reduce(before, InstanceDeleted(id="a"))
    assert (set(world.instances), world.activities, set(world.templates)) == ({"b"}, (activity,), {"t"})
    assert world.supervisor == before.supervisor


def test_activities_are_bounded_and_counted() -> None:
    many = [Activity(at=BEGIN, level="info", message=str(number)) for number in range(ACTIVITY_LIMIT + 7)]
    world = after(many)
    assert len(world.activities) == ACTIVITY_LIMIT
    assert world.activities[-1].message == str(ACTIVITY_LIMIT + 6)
    assert world.activity_count == ACTIVITY_LIMIT + 7


def test_foreign_text_is_safe_in_the_world() -> None:
    hostile = instance("a", state_error="\x1b[2Jgone", exit_message="\x9b31m")
    world = after([reset([hostile]), Activity(at=BEGIN, level="alarm", message="\x1b]0;x\x07")])
    assert world.instances["a"].state_error == "�[2Jgone"
    assert world.instances["a"].exit_message == "�31m"
    assert world.activities[0].message == "�]0;x�"


def test_counters_of_an_instance_without_vmm_do_not_count_but_its_guest_is_remembered() -> None:
    counters = InstanceStatistics(id="a", faults=9, private_bytes=5, guest=Guest(corrupt="0x1000"))
    live = world_of(instance("a"), statistics=[counters])
    assert live.statistics_of("a") == counters
    stopped = reduce(live, InstanceChanged(instance=instance("a", state=State.STOPPED)))
    assert stopped.statistics_of("a") == InstanceStatistics(id="a", guest=counters.guest)
    assert totals(stopped).private_bytes == 0
    assert totals(stopped).corrupt == 1


def test_totals_sum_what_the_counters_say() -> None:
    world = world_of(
        locked_source("source", ["fork-1", "fork-2"]),
        fork_of("source", "fork-1"),
        fork_of("source", "fork-2", state=State.STOPPED),
        statistics=[
            InstanceStatistics(id="fork-1", faults=3, prefetched_pages=40, residual_faults=1, private_bytes=7),
        ],
    )
    sums = totals(world)
    assert (sums.instances, sums.running, sums.forks, sums.locked) == (3, 1, 2, 1)
    assert (sums.faults, sums.prefetched_pages, sums.residual_faults, sums.private_bytes) == (3, 40, 1, 7)
    assert totals(world, ["source"]).faults == 0


def test_fault_history_holds_what_was_added_between_samples() -> None:
    def counted(faults: int) -> InstanceStatistics:
        return InstanceStatistics(id="a", faults=faults)

    world = after(
        [
            reset([instance("a")], [counted(10)]),
            sampled(1, counted(10)),
            sampled(2, counted(15)),
            sampled(3, counted(4)),
        ]
    )
    # From 15 to 4: a new VMM has counted from zero.
    assert [sample.faults for sample in world.fault_history("a")] == [5, 4]


def test_fault_history_is_bounded() -> None:
    events: list[Event] = [reset([instance("a")])]
    events += [sampled(n, InstanceStatistics(id="a", faults=n + 1)) for n in range(FAULT_HISTORY_LIMIT + 9)]
    assert len(after(events).fault_history("a")) == FAULT_HISTORY_LIMIT


def test_fault_rates_are_per_second_and_end_now() -> None:
    history = [FaultSample(100.1, 8), FaultSample(109.6, 3), FaultSample(109.9, 2), FaultSample(50.0, 99)]
    rates = rates_over_time(history, now=109.95, buckets=20, seconds=0.5)
    assert rates[-1] == pytest.approx(10.0)
    assert rates[0] == pytest.approx(16.0)
    assert sum(rates) == pytest.approx(26.0)


def test_a_sample_from_the_near_future_is_in_the_newest_bucket() -> None:
    assert rates_over_time([FaultSample(110.2, 4)], now=110.0, buckets=3, seconds=1.0) == [0.0, 0.0, 4.0]


def shown(world: World, collapsed: frozenset[str] = frozenset(), query: str = "", order: str = "age") -> list[str]:
    """The rows as indented names."""
    view = View(Sort(BY_WORD[order].measure), filter_of(query), collapsed)
    return ["  " * row.depth + row.id for row in rows(world, view)]


def family() -> World:
    """source -> fork-1, fork-2 -> inner; and a root made later."""
    return world_of(
        instance("late", age=9),
        locked_source("source", ["fork-1", "fork-2"]),
        fork_of("source", "fork-2", age=2, state=State.STANDBY),
        fork_of("source", "fork-1", age=1),
        fork_of("fork-2", "inner", age=3),
    )


def test_rows_are_in_the_order_of_creation_with_forks_below_their_source() -> None:
    assert shown(family()) == ["source", "  fork-1", "  fork-2", "    inner", "late"]


def test_the_last_sibling_is_known_as_such() -> None:
    last = {row.id: row.last for row in rows(family())}
    assert last == {"source": False, "fork-1": False, "fork-2": True, "inner": True, "late": True}


def test_what_is_closed_hides_all_below_it_and_tells_how_many() -> None:
    assert shown(family(), collapsed=frozenset({"source"})) == ["source", "late"]
    first = rows(family(), View(collapsed=frozenset({"source"})))[0]
    assert (first.descendants, first.expanded) == (3, False)
    assert shown(family(), collapsed=frozenset({"fork-2"})) == ["source", "  fork-1", "  fork-2", "late"]


def test_a_filter_keeps_the_sources_of_a_match() -> None:
    found = rows(family(), View(filter=filter_of("inner")))
    assert [(row.id, row.matches) for row in found] == [("source", False), ("fork-2", False), ("inner", True)]
    assert [row.last for row in found] == [True, True, True]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("standby", ["source", "  fork-2"]),
        ("locked", ["source"]),
        ("UFFD running", ["source", "  fork-1", "  fork-2", "    inner"]),
        ("nothing-like-this", []),
    ],
)
def test_all_words_of_a_filter_must_match(query: str, names: list[str]) -> None:
    assert shown(family(), query=query) == names


def test_siblings_are_sorted_and_numbers_in_names_as_numbers() -> None:
    world = world_of(
        *(instance(name, age=age) for age, name in enumerate(["fork-10", "fork-9", "fork-1"])),
        statistics=[
            InstanceStatistics(id="fork-9", faults=5, private_bytes=1),
            InstanceStatistics(id="fork-1", faults=2),
        ],
    )
    assert shown(world, order="name") == ["fork-1", "fork-9", "fork-10"]
    assert shown(world, order="faults") == ["fork-9", "fork-1", "fork-10"]
    assert shown(world, order="private") == ["fork-9", "fork-10", "fork-1"]
    assert shown(world, order="age") == ["fork-10", "fork-9", "fork-1"]


def test_an_instance_whose_source_is_gone_is_a_root() -> None:
    world = reduce(family(), InstanceDeleted(id="source"))
    assert shown(world) == ["fork-1", "fork-2", "  inner", "late"]


def test_sources_in_a_circle_are_shown_once_and_nothing_hangs() -> None:
    world = world_of(
        fork_of("b", "a", age=1), fork_of("a", "b", age=2), fork_of("self", "self", age=3), fork_of("b", "c", age=4)
    )
    assert sorted(row.id for row in rows(world)) == ["a", "b", "c", "self"]
    assert set(descendants(world, "a")) == {"b", "c"}
    assert rows(world, View(filter=filter_of("c")))


@given(st.lists(st.integers(-1, 30), min_size=1, max_size=30), st.sets(st.integers(0, 29)))
def test_rows_of_any_forest(sources: list[int], closed: set[int]) -> None:
    world = world_of(*(fork_of(str(source), str(number), age=number) for number, source in enumerate(sources)))
    everything = rows(world)
    assert sorted(row.id for row in everything) == sorted(world.instances)
    for row in everything:
        assert (row.depth == 0) == (row.parent == -1)
        if row.parent >= 0:
            assert everything[row.parent].depth == row.depth - 1
    visible = rows(world, View(collapsed=frozenset(map(str, closed))))
    for row in visible:
        parent = visible[row.parent] if row.parent >= 0 else None
        assert parent is None or parent.id not in set(map(str, closed))


@pytest.mark.parametrize("shape", ["chain", "fan"])
def test_ten_thousand_instances_of_any_depth_are_rows_within_a_frame_or_few(shape: str) -> None:
    instances = [
        fork_of(f"i{number - 1}" if shape == "chain" else "i0", f"i{number}", age=number) for number in range(10_000)
    ]
    world = world_of(*instances)
    best = min(timed(world) for _ in range(3))
    depth = max(row.depth for row in rows(world))
    assert depth == (9_999 if shape == "chain" else 1)
    assert best < 0.5
    assert len(descendants(world, "i0")) == 9_999


def timed(world: World) -> float:
    """Seconds for the rows of a world."""
    begin = time.perf_counter()
    assert len(rows(world)) == len(world.instances)
    return time.perf_counter() - begin


@settings(max_examples=30)
@given(st.lists(st.sampled_from(IDS), max_size=30))
def test_deleting_in_any_order_leaves_a_forest(deletions: list[str]) -> None:
    chain = [fork_of(IDS[number - 1] if number else "none", name, age=number) for number, name in enumerate(IDS)]
    world = world_of(*chain)
    for name in deletions:
        world = reduce(world, InstanceDeleted(id=name))
        assert {row.id for row in rows(world)} == set(world.instances)


def test_the_time_of_the_statistics_is_kept() -> None:
    at: datetime | None = after([reset([]), sampled(3)]).statistics_at
    assert at == BEGIN + timedelta(seconds=3)


def test_instances_are_in_the_order_of_their_numbers_whatever_their_times() -> None:
    world = world_of(
        instance("third", age=-9, number=3), instance("first", age=5, number=1), instance("second", age=7200, number=2)
    )
    assert shown(world) == ["first", "second", "third"]


def test_faults_are_dated_by_the_boot_clock_also_when_the_wall_clock_goes_back() -> None:
    samples = [
        Statistics(
            at=BEGIN - timedelta(hours=hour),
            clock=100.0 + hour,
            instances=(InstanceStatistics(id="a", faults=hour + 1),),
            host=HostStatistics(),
        )
        for hour in range(3)
    ]
    history = after([reset([instance("a")]), *samples]).fault_history("a")
    assert rates_over_time(history, now=102.5, buckets=3, seconds=1.0) == [1.0, 1.0, 1.0]
