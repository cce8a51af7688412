"""What each event changes adds up to what is reckoned from the beginning: sums, children, templates, rows, families."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forktui.model.change import NOTHING
from forktui.model.family import family_after, family_beside, family_of
from forktui.model.filter import filter_of
from forktui.model.forest import Forest, View, forest, rows
from forktui.model.reducing import reduce, reduce_all
from forktui.model.sorting import Sort
from forktui.model.totals import Totals
from forktui.model.world import World, totals
from forktui.view.columns import BY_WORD
from supervisor.models import (
    Event,
    Guest,
    HostStatistics,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    InstanceStatistics,
    Reset,
    State,
    Statistics,
    Template,
    TemplateChanged,
    TemplateDeleted,
)
from tests.harness.told_hosts import BEGIN, fork_of, instance, reset, world_of

IDS = [f"i{number}" for number in range(4)]
names = st.sampled_from(IDS)


def called(one: Instance, name: str) -> Instance:
    """An instance with another name."""
    return one.model_copy(update={"name": name})


@st.composite
def instances(draw: st.DrawFn) -> Instance:
    """An instance of any state, below any other or itself, or below one that never was."""
    name, state = draw(names), draw(st.sampled_from([State.RUNNING, State.STANDBY, State.STOPPED]))
    source = draw(st.sampled_from([None, "never", *IDS]))
    fields: dict[str, object] = {"number": draw(st.integers(0, 3)), "mem_locked": draw(st.booleans()), "state": state}
    fields["template_id"] = draw(st.sampled_from([None, *IDS]))
    made = instance(name, **fields) if source is None else fork_of(source, name, **fields)
    return called(made, draw(st.sampled_from(["vm-2", "vm-10", "vm", name])))


@st.composite
def counters(draw: st.DrawFn) -> InstanceStatistics:
    """Counters of an instance that may be there."""
    small = st.integers(0, 3)
    guest = draw(st.sampled_from([None, Guest(), Guest(corrupt="0x1000")]))
    values = {name: draw(small) for name in ("faults", "prefetched_pages", "residual_faults", "private_bytes")}
    values |= {"shared_bytes": draw(small), "oldest_fault_ms": draw(st.integers(0, 1))}
    return InstanceStatistics.model_validate({"id": draw(names), "guest": guest, **values})


@st.composite
def templates(draw: st.DrawFn) -> Template:
    """A template of an instance that may be there; two of one are not excluded."""
    name, source = draw(names), draw(names)
    return Template(
        id=name, instance_id=source, size_bytes=1, page_size=4096, fork_count=draw(st.integers(0, 2)), layers=1
    )


def sampled(told: Sequence[InstanceStatistics], second: int) -> Statistics:
    """Statistics that tell of each at most once, as they do."""
    by_id = {one.id: one for one in told}
    return Statistics(at=BEGIN, clock=float(second), instances=tuple(by_id.values()), host=HostStatistics())


def whole(host: Sequence[Instance], told: Sequence[InstanceStatistics], of: Sequence[Template]) -> Reset:
    """A snapshot, after a gap."""
    return reset({one.id: one for one in host}.values(), told, {one.id: one for one in of}.values())


an_event = st.one_of(
    st.builds(lambda one: InstanceChanged(instance=one), instances()),
    st.builds(lambda one: InstanceChanged(instance=one), instances()),
    st.builds(lambda name: InstanceDeleted(id=name), names),
    st.builds(sampled, st.lists(counters(), max_size=4), st.integers(0, 9)),
    st.builds(lambda one: TemplateChanged(template=one), templates()),
    st.builds(lambda name: TemplateDeleted(id=name), names),
    st.builds(
        whole, st.lists(instances(), max_size=4), st.lists(counters(), max_size=3), st.lists(templates(), max_size=2)
    ),
)


FAMILY = reset([instance("i0"), fork_of("i0", "i1"), fork_of("i1", "i2"), fork_of("i1", "i3", number=2)])
"""Something to change, which few of all events would make."""


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Any events in any order, some of them told again at once or later."""
    told = [draw(st.sampled_from([FAMILY, reset([])])), *draw(st.lists(an_event, max_size=25))]
    again = draw(st.lists(st.integers(0, 24), max_size=5))
    for place in again:
        if place < len(told):
            told.insert(draw(st.integers(place, len(told))), told[place])
    return told


@dataclass
class Plain:
    """The host in dictionaries that are searched from the beginning, as an event says."""

    instances: dict[str, Instance] = field(default_factory=dict)
    statistics: dict[str, InstanceStatistics] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)

    def hear(self, event: Event) -> None:
        """Do what the event says."""
        match event:
            case Reset(snapshot=snapshot):
                self.instances = {one.id: one for one in snapshot.instances}
                self.templates = {one.id: one for one in snapshot.templates}
                self.statistics = {one.id: one for one in snapshot.statistics if one.id in self.instances}
            case InstanceChanged():
                self.instances[event.instance.id] = event.instance
            case InstanceDeleted():
                self.instances.pop(event.id, None)
                self.statistics.pop(event.id, None)
            case TemplateChanged():
                self.templates[event.template.id] = event.template
            case TemplateDeleted():
                self.templates.pop(event.id, None)
            case Statistics():
                self.statistics |= {one.id: one for one in event.instances if one.id in self.instances}

    def live(self) -> list[InstanceStatistics]:
        """The counters that count."""
        return [one for one in self.statistics.values() if self.instances[one.id].vmm_pid is not None]

    def totals(self) -> Totals:
        """The sums over all instances."""
        found, live = self.instances.values(), self.live()
        guests = [one.guest for one in self.statistics.values() if one.guest is not None]
        return Totals(
            instances=len(found),
            running=sum(one.state is State.RUNNING for one in found),
            forks=sum(one.fork_kind is not None for one in found),
            locked=sum(one.mem_locked for one in found),
            corrupt=sum(guest.corrupt is not None for guest in guests),
            faults=sum(one.faults for one in live),
            prefetched_pages=sum(one.prefetched_pages for one in live),
            residual_faults=sum(one.residual_faults for one in live),
            private_bytes=sum(one.private_bytes for one in live),
            shared_bytes=sum(one.shared_bytes for one in live),
            walkers=len(guests),
            oldest_fault_ms=max((one.oldest_fault_ms for one in live), default=0.0),
        )

    def forks(self) -> dict[str, set[str]]:
        """The forks of each source."""
        found: dict[str, set[str]] = {}
        for one in self.instances.values():
            if one.source_id is not None:
                found.setdefault(one.source_id, set()).add(one.id)
        return found


def index(of: Mapping[str, Mapping[str, None]]) -> dict[str, set[str]]:
    """An index of the world's as sets."""
    return {key: set(members) for key, members in of.items()}


@settings(max_examples=300)
@given(streams())
def test_what_is_reckoned_at_each_event_is_what_is_reckoned_from_the_beginning(stream: list[Event]) -> None:
    world, plain = World(), Plain()
    for event in stream:
        world = reduce(world, event)
        plain.hear(event)
        assert dict(world.instances) == plain.instances
        assert dict(world.statistics) == plain.statistics
        assert dict(world.templates) == plain.templates
        assert totals(world) == plain.totals()
        assert totals(world, world.instances) == plain.totals()
        assert index(world.forks) == plain.forks()
        for one in plain.instances.values():
            of = [template.id for template in plain.templates.values() if template.instance_id == one.id]
            found = world.template_of(one)
            assert (found is None and not of) or (found is not None and found.id in of)


@given(streams(), st.integers(1, 9))
def test_events_that_come_together_are_reduced_as_if_they_came_one_by_one(stream: list[Event], together: int) -> None:
    one_by_one = in_pieces = World()
    for event in stream:
        one_by_one = reduce(one_by_one, event)
    for begin in range(0, len(stream), together):
        before, pieces = in_pieces, stream[begin : begin + together]
        in_pieces = reduce_all(in_pieces, pieces)
        change = NOTHING
        for event in pieces:
            before = reduce(before, event)
            change |= before.change
        assert in_pieces.change.everything == change.everything
        assert change.everything or in_pieces.change == change
    assert in_pieces == one_by_one


@given(streams())
def test_what_no_change_names_is_the_same(stream: list[Event]) -> None:
    world = World()
    for event in stream:
        before, world = world, reduce(world, event)
        if not world.change.everything:
            for name in {*before.instances, *world.instances} - world.change.shown:
                assert before.instances.get(name) is world.instances.get(name)
            for name in {*before.statistics, *world.statistics} - world.change.ids:
                assert before.statistics.get(name) is world.statistics.get(name)


sorts = st.builds(Sort, st.sampled_from([column.measure for column in BY_WORD.values()]), st.booleans(), st.booleans())
queries = ["", "", "vm", "running", "state:standby vm-1", "is:locked", "is:corrupt", "template:i1", "template:vm", "x:"]
views = st.builds(View, sorts, st.sampled_from(queries).map(filter_of), st.frozensets(names, max_size=2), st.booleans())


@settings(max_examples=300)
@given(st.lists(st.tuples(an_event, st.booleans(), views), max_size=25))
def test_rows_after_each_change_are_the_rows_laid_out_anew(story: list[tuple[Event, bool, View]]) -> None:
    world, kept, view = World(), Forest(), View()
    for event, looks_elsewhere, elsewhere in [(FAMILY, True, View()), *story]:
        world = reduce(world, event)
        view = elsewhere if looks_elsewhere else view
        kept = kept.after(world, world.change, view)
        anew = forest(world, view)
        assert list(kept.rows) == list(anew.rows)
        assert kept.sums == anew.sums
        assert (kept.found, kept.matching) == (anew.found, anew.matching)
        assert kept.rows.position == {row.id: place for place, row in enumerate(anew.rows)}
        assert kept.after(world, NOTHING, view) is kept


@settings(max_examples=300)
@given(streams(), names)
def test_a_family_after_each_change_is_the_family_looked_for_anew(stream: list[Event], root: str) -> None:
    world = World()
    family = family_of(world, root)
    for event in stream:
        before, world = world, reduce(world, event)
        family = family_after(family, before, world, world.change)
        assert family == family_of(world, root)


@settings(max_examples=200)
@given(streams(), names, names)
def test_a_family_beside_another_is_the_family_looked_for_anew(stream: list[Event], root: str, other: str) -> None:
    world = reduce_all(World(), stream)
    placed = forest(world)
    if root in world.instances and other in world.instances:
        anew = family_of(world, other)
        if anew.below == placed.below(other):
            assert family_beside(family_of(world, root), world, other, anew.below) == anew
            assert family_beside(None, world, other, anew.below).faults == anew.faults


def test_counters_leave_the_rows_alone_where_the_order_is_not_theirs() -> None:
    world = world_of(instance("a"), instance("b", age=1))
    begun = forest(world)
    counted = reduce(world, sampled([InstanceStatistics(id="b", faults=7)], 1))
    assert begun.after(counted, counted.change, View()) is begun
    by_faults = begun.after(counted, counted.change, View(Sort(BY_WORD["faults"].measure)))
    assert [row.id for row in by_faults.rows] == ["b", "a"]


def test_a_record_that_moves_nothing_leaves_the_rows_alone() -> None:
    world = world_of(instance("a"), instance("b", age=1))
    begun = forest(world)
    busy = reduce(world, InstanceChanged(instance=instance("a", state=State.STOPPED)))
    assert busy.change.shown == {"a"}
    assert begun.after(busy, busy.change, View()) is begun


def test_a_family_has_the_faults_of_all_below_it_and_keeps_those_of_who_has_gone() -> None:
    world = world_of(instance("source"), fork_of("source", "a"), fork_of("a", "b"), instance("other"))
    told = [InstanceStatistics(id=name, faults=count) for name, count in (("a", 2), ("b", 3), ("other", 9))]
    world = reduce(world, sampled(told, 1))
    family = family_of(world, "source")
    assert [(one.at, one.faults) for one in family.faults] == [(1.0, 5)]
    assert [one.faults for one in world.fault_history("other")] == [9]
    a, b = (InstanceStatistics(id=name, faults=10) for name in ("a", "b"))
    for event in (sampled([a], 2), InstanceDeleted(id="b"), sampled([a.model_copy(update={"faults": 14}), b], 3)):
        before, world = world, reduce(world, event)
        family = family_after(family, before, world, world.change)
    assert [(one.at, one.faults) for one in family.faults] == [(1.0, 5), (2.0, 8), (3.0, 4)]


@pytest.mark.parametrize("name", ["", "fork-", "10", "vm-٣", "vm-" + "9" * 300, "²"])
def test_any_name_can_be_sorted(name: str) -> None:
    world = world_of(called(instance("a"), name), called(instance("b"), "vm-1"), called(instance("c"), "1"))
    assert {row.id for row in rows(world, View(Sort(BY_WORD["name"].measure)))} == {"a", "b", "c"}


def test_what_is_wrong_comes_before_what_is_locked_and_that_before_what_was_wrong() -> None:
    stuck = InstanceStatistics(id="a", oldest_fault_ms=5000, stalled="stuck")
    world = world_of(instance("a"), instance("b", age=1), instance("c", age=2), instance("d", age=3, mem_locked=True))
    by_lock = View(Sort(BY_WORD["lock"].measure))
    world = reduce(world, sampled([stuck, stuck.model_copy(update={"id": "c"})], 1))
    assert [row.id for row in rows(world, by_lock)] == ["a", "c", "d", "b"]
    world = reduce(world, sampled([InstanceStatistics(id="a")], 2))
    assert [row.id for row in rows(world, by_lock)] == ["c", "d", "a", "b"]
