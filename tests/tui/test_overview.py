"""The column beside everything else on a wide terminal: trees by their faults and memory, the host, what failed."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.model.forest import descendants
from forktui.model.reducing import reduce_all
from forktui.model.trees import trees
from forktui.model.world import World, totals
from forktui.tui.app import ForkTui
from forktui.view.glyphs import ASCII, UNICODE, Glyphs
from forktui.view.overview import FAILURE_LINES, TREES, overview
from forktui.view.rows import text_of
from forktui.view.styled_lines import line_width
from supervisor.models import Activity, HostStatistics, InstanceStatistics, Level, Statistics
from tests.harness.pilot import until_shown, until_told
from tests.harness.recorded_supervisor import RecordedSupervisor, Recording
from tests.harness.told_hosts import BEGIN, fork_of, instance, world_of

MIB = 1 << 20


def counted(world: World, clock: float, *counters: InstanceStatistics) -> World:
    """The world after statistics of a moment of the supervisor's clock."""
    host = HostStatistics(cpu_percent=250, memory_total_bytes=16 << 30, memory_available_bytes=4 << 30)
    at = BEGIN + timedelta(seconds=clock)
    return reduce_all(world, [Statistics(at=at, clock=clock, instances=counters, host=host)])


def crowd(number: int) -> World:
    """So many trees of a source and its fork, of which each has more faults and memory than the one before it."""
    world = world_of(
        *(
            one
            for n in range(number)
            for one in (instance(f"tree-{n}", age=n), fork_of(f"tree-{n}", f"tree-{n}-fork", age=n + 0.5))
        )
    )
    counters = [
        InstanceStatistics(id=f"tree-{n}-fork", faults=10 * n, private_bytes=n * MIB, shared_bytes=MIB)
        for n in range(number)
    ]
    return counted(counted(world, 100), 109, *counters)


def told(world: World, level: Level, *messages: str) -> World:
    """The world after these activities."""
    return reduce_all(world, [Activity(at=BEGIN, level=level, message=message) for message in messages])


def words(world: World, width: int = 42, height: int = 40) -> list[str]:
    """What the column says at the clock's 110 seconds."""
    return [text_of(line) for line in overview(world, trees(world, 110, 10), width, height, UNICODE)]


@given(st.lists(st.integers(-1, 30), max_size=30), st.lists(st.integers(0, 1000), min_size=30, max_size=30))
def test_each_tree_has_the_sums_of_what_is_below_its_root(sources: list[int], faults: list[int]) -> None:
    """Sources that are not there, come later or are in a circle among them."""
    world = world_of(
        *(fork_of(f"i{source}", f"i{n}", age=n) for n, source in enumerate(sources)),
        statistics=[InstanceStatistics(id=f"i{n}", faults=faults[n]) for n in range(len(sources))],
    )
    found = trees(world, 0, 10)
    assert sum(tree.sums.instances for tree in found) == len(sources)
    assert sum(tree.sums.faults for tree in found) == world.sums.faults
    for tree in found:
        if all(source < n for n, source in enumerate(sources)):
            below = [tree.root, *descendants(world, tree.root)]
            assert tree.sums == replace(totals(world, below), oldest_fault_ms=0.0)


def test_faults_are_of_the_last_seconds_alone() -> None:
    source, fork = instance("source"), fork_of("source", "fork", age=1)
    world = counted(world_of(source, fork), 10, InstanceStatistics(id="fork", faults=100))
    world = counted(world, 25, InstanceStatistics(id="fork", faults=150), InstanceStatistics(id="source", faults=30))
    assert [(tree.root, tree.faults_per_second) for tree in trees(world, 30, 10)] == [("source", 8.0)]
    assert [tree.faults_per_second for tree in trees(world, 36, 10)] == [0.0]


def test_the_hottest_and_the_largest_come_first_and_how_many_more_there_are() -> None:
    said = words(crowd(9))
    hottest, largest = (next(n for n, line in enumerate(said) if title in line) for title in ("hottest", "memory by"))
    for begin, numbers in ((hottest, ("8.0", "7.0")), (largest, ("9 MiB", "8 MiB"))):
        rows = said[begin + 1 : begin + 1 + TREES]
        assert [row.split()[0] for row in rows] == ["tree-8", "tree-7", "tree-6", "tree-5", "tree-4"]
        assert all(number in row for number, row in zip(numbers, rows, strict=False))
    # A tree without a fault is none of the hottest.
    assert said[hottest + 1 + TREES] == "and 3 more"
    assert said[largest + 1 + TREES] == "and 4 more"


@pytest.mark.parametrize("height", [0, 1, 2, 7, 15, 24, 60])
@pytest.mark.parametrize("width", [1, 12, 42, 90])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_nothing_is_larger_than_the_column(width: int, height: int, glyphs: Glyphs) -> None:
    world = told(crowd(9), "alarm", "名" * 300, "plain words that are longer than the column is wide: " * 9)
    lines = overview(world, trees(world, 110, 10), width, height, glyphs)
    assert len(lines) <= height
    if width >= 42:
        assert max((line_width(line) for line in lines), default=0) <= width


def test_a_failure_that_is_long_is_cut_with_an_ellipsis_and_the_newest_is_first() -> None:
    world = told(told(crowd(1), "warning", "first"), "info", "no failure")
    said = words(told(world, "alarm", "a page server of source was killed " * 9))
    begin = said.index("failures and warnings") + 1
    assert said[begin][9:].startswith("■ a page server")
    assert said[begin + FAILURE_LINES - 1].endswith("…")
    assert said[begin + FAILURE_LINES].endswith("▲ first")
    assert not any("no failure" in line for line in said)


def test_more_than_one_core_and_memory_that_is_not_told_are_no_gauge_beyond_the_column() -> None:
    said = words(crowd(1))
    assert any("250%" in line for line in said)
    assert "12.0 GiB" not in "".join(said) and "4 GiB of 16 GiB free" in said
    assert "not told yet" in words(World())


@pytest.mark.parametrize(("columns", "shown"), [(199, False), (200, True), (300, True)])
async def test_it_is_there_where_there_is_room(columns: int, shown: bool, plain_environment: None) -> None:
    recording = Recording.load()
    source = RecordedSupervisor(recording.events, recording.page_maps)
    app = ForkTui(source, on_mount_focus="source", now=lambda: recording.clock)
    async with app.run_test(size=(columns, 50)) as pilot:
        await until_told(pilot, recording)
        if shown:
            await until_shown(pilot, "memory by tree")
            await until_shown(pilot, "188 MiB")
        assert app.dashboard.query_one("#overview").display is shown
