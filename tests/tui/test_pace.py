"""How fast the dashboard is: with ten thousand instances, and for a change of one."""

import time
from collections.abc import Sequence

import pytest
from textual.pilot import Pilot
from textual.strip import Strip

from forktui.tui.app import ForkTui
from forktui.tui.pace import CHANGE_SECONDS, LEAST_SECONDS, MOST_SECONDS, SHARE, STATISTICS_SECONDS, Pace
from supervisor.models import HostStatistics, Instance, InstanceChanged, InstanceDeleted, InstanceStatistics, Statistics
from tests.harness.pilot import hear, host, screen_text, tree, until, until_shown
from tests.harness.told_hosts import BEGIN, FORKS, chain, family, fan, fork_of, locked_source

pytestmark = pytest.mark.usefixtures("plain_environment")


@pytest.mark.parametrize("instances", [chain(10_000), fan(10_000)], ids=["chain", "fan"])
async def test_ten_thousand_instances_are_shown_moved_in_and_changed_without_a_pause(
    instances: Sequence[Instance],
) -> None:
    async with host(instances).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(tree(pilot).rows) == 10_000)
        begin = time.perf_counter()
        await pilot.press("end", "k", "pageup", "home", "pagedown", "end")
        assert tree(pilot).cursor_id == "i9999"
        await hear(pilot, InstanceChanged(instance=instances[9_999].model_copy(update={"name": "renamed"})))
        await until_shown(pilot, "renamed")
        assert time.perf_counter() - begin < 10


async def test_statistics_repaint_only_the_rows_that_changed() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.pause(0.3)
        drawn: list[int] = []
        render_line = tree(pilot).render_line
        tree(pilot).render_line = lambda y: drawn.append(y) or render_line(y)  # type: ignore[func-returns-value,method-assign]
        counters = InstanceStatistics(id="fork-2", faults=77)
        await hear(pilot, Statistics(at=BEGIN, instances=(counters,), host=HostStatistics()))
        await until_shown(pilot, " 77 ")
        assert set(drawn[: drawn.index(3) + 1]) == {3}


async def test_fork_count_and_badge_change_well_within_a_second() -> None:
    async with host([locked_source("source", [])]).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        assert "locked" not in tree(pilot).render_line(1).text
        begin = time.perf_counter()
        await hear(pilot, InstanceChanged(instance=locked_source("source", FORKS)))
        await until_shown(pilot, "locked     3 ")
        assert time.perf_counter() - begin < 1


# When to draw


def test_a_change_after_a_pause_is_drawn_at_once_and_counters_are_waited_for() -> None:
    pace = Pace()
    assert pace.want(10.0, STATISTICS_SECONDS)
    assert pace.due == 10.0 + STATISTICS_SECONDS
    assert pace.want(10.1, CHANGE_SECONDS)
    assert pace.due == 10.1 + CHANGE_SECONDS
    assert not pace.want(10.12, CHANGE_SECONDS)


@pytest.mark.parametrize(
    ("cost", "pause"), [(0.0, LEAST_SECONDS), (0.001, LEAST_SECONDS), (0.006, 0.006 / SHARE), (3.0, MOST_SECONDS)]
)
def test_the_longer_a_draw_takes_the_later_is_the_next_but_four_a_second_there_are(cost: float, pause: float) -> None:
    pace = Pace()
    pace.want(10.0, CHANGE_SECONDS)
    pace.drawn(10.05, 10.05 + cost)
    assert pace.due == float("inf")
    pace.want(10.05 + cost, CHANGE_SECONDS)
    assert pace.due == pytest.approx(10.05 + cost + pause)


# What is drawn


async def drawn_lines(pilot: Pilot[None], *events: InstanceChanged | InstanceDeleted | Statistics) -> list[int]:
    """The lines of the tree that events have drawn."""
    drawn: list[int] = []
    fork_tree, render_line = tree(pilot), tree(pilot).render_line

    def note(y: int) -> Strip:
        drawn.append(y)
        return render_line(y)

    fork_tree.render_line = note  # type: ignore[method-assign]
    await hear(pilot, *events)
    await until(pilot, lambda: app_of(pilot).dashboard.world is app_of(pilot).world)
    await pilot.pause(0.1)
    return drawn


def app_of(pilot: Pilot[None]) -> ForkTui:
    """The dashboard's application."""
    assert isinstance(pilot.app, ForkTui)
    return pilot.app


async def test_what_changes_off_the_screen_draws_no_row_whatever_it_is() -> None:
    crowd = fan(300)
    async with host(crowd).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(tree(pilot).rows) == 300)
        await pilot.pause(0.3)
        assert (
            await drawn_lines(pilot, InstanceChanged(instance=crowd[200].model_copy(update={"recording": True}))) == []
        )
        assert await drawn_lines(pilot, InstanceDeleted(id="i250")) == []
        assert await drawn_lines(pilot, InstanceChanged(instance=fork_of("i0", "late", age=999))) == []
        counters = InstanceStatistics(id="i123", faults=5)
        assert await drawn_lines(pilot, Statistics(at=BEGIN, instances=(counters,), host=HostStatistics())) == []
        assert len(tree(pilot).rows) == 300
        await pilot.press("end")
        assert "late" in await until_shown(pilot, " late ")


async def test_a_record_that_changed_draws_its_row_alone() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.pause(0.3)
        changed = fork_of("source", "fork-2", age=2, recording=True)
        assert set(await drawn_lines(pilot, InstanceChanged(instance=changed))) == {3}
        assert "● rec" in screen_text(pilot)


async def test_a_key_that_leaves_the_screen_is_drawn_though_a_rebuild_is_due() -> None:
    crowd = fan(300)
    async with host(crowd).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(tree(pilot).rows) == 300)
        await hear(pilot, InstanceDeleted(id="i5"))
        await pilot.press("end")
        assert tree(pilot).cursor_id == "i299"
        await until_shown(pilot, " i299 ")
        await until(pilot, lambda: len(tree(pilot).rows) == 299)
        assert tree(pilot).cursor_id == "i299"
