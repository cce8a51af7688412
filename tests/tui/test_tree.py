"""The fork tree as its user has arranged it: the order is total and stable, and the cursor stays on its instance."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from forktui.model.change import EVERYTHING, NOTHING
from forktui.model.forest import View, forest
from forktui.model.reducing import reduce
from forktui.model.sorting import Measure, Sort, created, ordered
from forktui.model.tree import Tree
from forktui.model.world import World
from forktui.view.columns import BY_WORD, COLUMNS, NAME
from supervisor.models import Event, InstanceChanged, InstanceDeleted, InstanceStatistics, State, Statistics
from tests.harness.told_hosts import BEGIN, chain, fork_of, instance, locked_source, reset, world_of

IDS = [f"i{number}" for number in range(8)]
names = st.sampled_from(IDS)
measures = st.sampled_from([column.measure for column in (NAME, *COLUMNS)])
sorts = st.builds(Sort, measures, st.booleans(), st.booleans())


def tree_of(world: World, view: View | None = None) -> Tree:
    """A tree with its cursor on the first row."""
    return Tree(forest=forest(World(), view)).after(world, EVERYTHING)


def sources(draw: st.DrawFn) -> World:
    """Eight instances, each a root or below an earlier one, some stopped, some with counters."""
    told, counters = [], []
    for number, name in enumerate(IDS):
        state = draw(st.sampled_from([State.RUNNING, State.STOPPED, State.STANDBY]))
        source = draw(st.sampled_from([None, *IDS[:number]]))
        fields: dict[str, object] = {"age": draw(st.integers(0, 2)), "state": state, "number": draw(st.integers(0, 2))}
        told.append(instance(name, **fields) if source is None else fork_of(source, name, **fields))
        small = {key: draw(st.integers(0, 2)) for key in ("faults", "private_bytes", "prefetched_pages")}
        counters.append(InstanceStatistics.model_validate({"id": name, **small}))
    return world_of(*told, statistics=counters)


worlds = st.composite(sources)()


@given(worlds, sorts)
def test_siblings_are_in_order_and_equal_ones_stay_as_they_were_made(world: World, sort: Sort) -> None:
    found = forest(world, View(sort))
    value = found.sums.__getitem__ if sort.summed else lambda name: sort.measure.of(world)(world.instances[name])
    rows = found.rows
    assert sorted(rows.ids) == IDS
    for parent in {row.parent for row in rows}:
        siblings = [row.id for row in rows if row.parent == parent]
        for one, other in pairwise(siblings):
            before, after = value(one), value(other)
            assert after is None or before is not None
            if before == after:
                assert created(world.instances[one]) < created(world.instances[other])
            elif after is not None:
                assert (before > after) == sort.falling


@given(worlds, measures)
def test_the_other_way_round_turns_round_all_but_what_is_equal_and_what_has_no_value(
    world: World, measure: Measure
) -> None:
    value = measure.of(world)
    values = {name: value(one) for name, one in world.instances.items()}
    up, down = ordered(IDS, values, False), ordered(IDS, values, True)
    known = [values[name] for name in up if values[name] is not None]
    assert [values[name] for name in down if values[name] is not None] == known[::-1]
    assert [name for name in up if values[name] is None] == [name for name in down if values[name] is None]


@given(worlds, sorts)
def test_a_sum_is_that_of_a_tree_and_of_every_tree_once(world: World, sort: Sort) -> None:
    found = forest(world, View(Sort(sort.measure, of_trees=True)))
    if not sort.measure.sums:
        assert not found.sums
        return
    value = sort.measure.of(world)
    for name in IDS:
        assert found.sums[name] == sum(value(world.instances[one]) or 0 for one in found.tree(name))


def test_live_values_move_no_row_before_it_is_time() -> None:
    world = world_of(instance("a"), instance("b", age=1))
    tree = tree_of(world, View(Sort(BY_WORD["faults"].measure)))
    counted = reduce(world, sampled([InstanceStatistics(id="b", faults=7)]))
    early = tree.after(counted, counted.change, sorts=False)
    assert early.rows is tree.rows
    arrived = reduce(counted, InstanceChanged(instance=instance("c", age=2)))
    early = early.after(arrived, arrived.change, sorts=False)
    assert list(early.rows.ids) == ["a", "b", "c"]
    assert list(early.after(arrived, NOTHING).rows.ids) == ["b", "a", "c"]


def sampled(counters: Sequence[InstanceStatistics]) -> Statistics:
    """Statistics of some instances, after the first second."""
    return Statistics(at=BEGIN, clock=1.0, instances=tuple(counters), host=reset([]).snapshot.host)


events = st.one_of(
    st.builds(lambda name, age: InstanceChanged(instance=instance(name, age=age)), st.just("new"), st.integers(-9, 9)),
    st.builds(lambda name: InstanceChanged(instance=instance(name, state=State.STOPPED)), names),
    st.builds(lambda name: InstanceDeleted(id=name), names),
    st.builds(lambda name, faults: sampled([InstanceStatistics(id=name, faults=faults)]), names, st.integers(0, 9)),
)
keys = st.one_of(
    st.builds(lambda sort: lambda tree: tree.with_sort(sort), sorts),
    st.builds(
        lambda query: lambda tree: tree.with_query(query), st.sampled_from(["", "i", "i1", "state:run", "x", "y:"])
    ),
    st.builds(lambda hides: lambda tree: tree.without_ended(hides), st.booleans()),
    st.builds(lambda name: lambda tree: tree.toggled(name), names),
    st.just(lambda tree: tree.toggled_all()),
)


@settings(max_examples=300)
@given(worlds, st.integers(0, 7), st.lists(st.one_of(events, keys), max_size=12))
def test_the_cursor_is_on_its_instance_as_long_as_that_has_a_row(
    world: World, begin: int, story: Sequence[object]
) -> None:
    tree = tree_of(world).moved(begin)
    for step in story:
        before = tree
        if callable(step):
            tree = step(tree)
        else:
            assert isinstance(step, InstanceChanged | InstanceDeleted | Statistics)
            changed = reduce(tree.world, step)
            tree = tree.after(changed, changed.change)
            if before.cursor_id in tree.rows.position:
                assert tree.cursor_id == before.cursor_id, "no event moves it"
        assert tree.cursor_id is not None or not any(row.matches for row in tree.rows)
        assert tree.cursor_id is None or tree.cursor_id in tree.rows.position
        if tree.cursor_id is not None and tree.chosen_id in tree.rows.position and callable(step):
            chosen = tree.rows[tree.rows.position[tree.chosen_id or ""]]
            assert tree.cursor_id == tree.chosen_id or not chosen.matches, "it is where it was put"


def kept(*steps: Event | str) -> Tree:
    """A tree of a source with three forks, whose cursor was put on the second, after some queries and events."""
    tree = tree_of(world_of(locked_source("s", ["a"]), *(fork_of("s", name, age=n) for n, name in enumerate("abc", 1))))
    tree = tree.moved_to("b")
    for step in steps:
        if isinstance(step, str):
            tree = tree.with_query(step)
        else:
            changed = reduce(tree.world, step)
            tree = tree.after(changed, changed.change)
    return tree


def test_a_filter_that_ends_gives_the_cursor_back() -> None:
    assert kept("name:c").cursor_id == "c"
    assert kept("name:c", "nothing").cursor_id is None
    assert kept("name:c", "nothing", "").cursor_id == "b"
    assert kept("name:c").on_match().with_query("").cursor_id == "c", "Enter has put it there"


def test_what_was_looked_for_in_a_closed_tree_is_open_afterwards() -> None:
    tree = kept().toggled_all()
    assert (tree.cursor_id, list(tree.rows.ids)) == ("s", ["s"])
    tree = tree.with_query("name:c").on_match().with_query("")
    assert (tree.cursor_id, list(tree.rows.ids)) == ("c", ["s", "a", "b", "c"])
    assert kept().toggled_all().toggled_all().cursor_id == "b", "it goes back into a tree that opens again"


def test_an_instance_takes_the_place_of_the_one_that_goes() -> None:
    assert kept(InstanceDeleted(id="b")).cursor_id == "c"
    assert kept(InstanceDeleted(id="c"), InstanceDeleted(id="b")).cursor_id == "a"
    assert kept(InstanceDeleted(id="s")).cursor_id == "b"


def test_a_tree_can_be_closed_while_something_is_looked_for_and_is_as_before_afterwards() -> None:
    assert list(kept("uffd").rows.ids) == ["s", "a", "b", "c"]
    tree = kept("uffd").toggled("s")
    assert list(tree.rows.ids) == ["s"]
    assert list(tree.with_query("").rows.ids) == ["s", "a", "b", "c"]


def test_marks_are_by_match_by_tree_and_by_range_and_never_of_what_is_not_looked_for() -> None:
    tree = kept("uffd")
    assert tree.forest.matching == ["a", "b", "c"]
    assert tree.forest.tree("s") == ["a", "b", "c"]
    assert tree.with_marks(["a"], "a").moved_to("c").marked_range() == ["a", "b", "c"]
    assert kept().with_marks(["c"], "c").moved_to("a").marked_range() == ["a", "b", "c"]
    assert kept().marked_range() == ["b"]
    assert tree.toggled("s").forest.matching == ["a", "b", "c"], "also what is closed"


def test_what_has_ended_is_hidden_but_for_what_leads_to_others() -> None:
    world = world_of(
        instance("s", state=State.STOPPED),
        fork_of("s", "a", age=1),
        fork_of("s", "b", age=2, state=State.STOPPED),
        instance("standby", age=3, state=State.STANDBY),
    )
    tree = tree_of(world).moved_to("b").without_ended(True)
    assert [(row.id, row.matches) for row in tree.rows] == [("s", False), ("a", True), ("standby", True)]
    assert tree.cursor_id == "standby", "which comes next"
    assert tree.forest.found == 2
    assert tree.without_ended(False).cursor_id == "b"
    ended = reduce(world, InstanceChanged(instance=fork_of("s", "a", age=1, state=State.STOPPED)))
    assert list(tree.after(ended, ended.change).rows.ids) == ["standby"]


@pytest.mark.parametrize("selected", [[], ["c", "a"]])
def test_actions_act_on_the_marked_in_the_trees_order_or_on_the_cursors(selected: list[str]) -> None:
    tree = kept().with_marks(selected)
    assert tree.selection == (tuple(sorted(selected)) or ("b",))
    assert tree.toggled("s").selection == (tuple(sorted(selected)) or ("s",))


def test_a_chain_of_ten_thousand_is_arranged_without_recursion() -> None:
    tree = tree_of(world_of(*chain(10_000))).moved(9_999)
    assert tree.row is not None and tree.row.depth == 9_999
    assert tree.toggled("i0").cursor_id == "i0"
    assert tree.toggled("i5000").cursor_id == "i5000"
    assert len(tree.with_query("i9999").rows) == 10_000
    assert len(tree.forest.tree("i0")) == 10_000
    summed = tree.with_sort(Sort(BY_WORD["forks"].measure, of_trees=True))
    assert summed.cursor_id == "i9999"
