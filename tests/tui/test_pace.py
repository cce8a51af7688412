"""How fast the dashboard is: with ten thousand instances, and for a change of one."""

import time
from collections.abc import Sequence

import pytest

from supervisor.models import HostStatistics, Instance, InstanceChanged, InstanceStatistics, Statistics
from tests.harness.pilot import hear, host, screen_text, tree, until, until_shown
from tests.harness.told_hosts import BEGIN, FORKS, chain, family, fan, locked_source

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
        assert "LOCKED" not in screen_text(pilot)
        begin = time.perf_counter()
        await hear(pilot, InstanceChanged(instance=locked_source("source", FORKS)))
        await until_shown(pilot, "LOCKED      3 ")
        assert time.perf_counter() - begin < 1
