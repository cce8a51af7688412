"""The dashboard on hosts that are told: where the cursor goes, what is open, in which order."""

import pytest

from supervisor.models import InstanceChanged, InstanceDeleted, InstanceStatistics
from tests.harness.pilot import hear, host, screen_text, shown_rows, told, tree, until, until_shown
from tests.harness.told_hosts import FORKS, family, instance, reset

pytestmark = pytest.mark.usefixtures("plain_environment")


async def test_the_cursor_follows_its_instance_when_rows_come_and_go() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j", "j")
        assert tree(pilot).cursor_id == "fork-2"
        for name in ("root-1", "root-2"):
            await hear(pilot, InstanceChanged(instance=instance(name, age=-5)))
        await hear(pilot, InstanceDeleted(id="fork-1"))
        await until(pilot, lambda: shown_rows(pilot) == ["root-1", "root-2", "source", "fork-2", "fork-3"])
        assert tree(pilot).cursor_id == "fork-2"


async def test_the_cursor_takes_the_place_of_a_deleted_instance() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("G")
        assert tree(pilot).cursor_id == "fork-3"
        await hear(pilot, InstanceDeleted(id="fork-3"))
        await until(pilot, lambda: tree(pilot).cursor_id == "fork-2")
        for name in ("fork-1", "fork-2", "source"):
            await hear(pilot, InstanceDeleted(id=name))
        await until(pilot, lambda: tree(pilot).cursor_id is None)
        await until_shown(pilot, "There is no instance yet")


async def test_keys_move_close_and_open() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("l")
        assert tree(pilot).cursor_id == "fork-1"
        await pilot.press("down", "up", "up", "up", "end", "k")
        assert tree(pilot).cursor_id == "fork-2"
        await pilot.press("h")
        assert tree(pilot).cursor_id == "source"
        await pilot.press("left")
        assert shown_rows(pilot) == ["source"]
        assert "▸ source +3" in screen_text(pilot)
        await pilot.press("right")
        assert shown_rows(pilot) == ["source", *FORKS]
        await pilot.press("enter")
        assert shown_rows(pilot) == ["source"]
        await pilot.press("z")
        assert shown_rows(pilot) == ["source", *FORKS]


async def test_closing_a_tree_takes_the_cursor_out_of_it() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("G", "z")
        assert tree(pilot).cursor_id == "source"


async def test_the_mouse_selects_and_a_double_click_closes() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.click("#tree", offset=(10, 3))
        assert tree(pilot).cursor_id == "fork-2"
        await pilot.click("#tree", offset=(10, 1), times=2)
        assert shown_rows(pilot) == ["source"]
        await pilot.click("#tree", offset=(10, 0))
        await pilot.click("#tree", offset=(10, 9))
        assert tree(pilot).cursor_id == "source"


async def test_the_dashboard_begins_on_the_instance_it_is_told_to() -> None:
    async with told(reset(family()), focus="fork-2").run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).cursor_id == "fork-2")


async def test_sorting_goes_round_and_says_by_what() -> None:
    counters = [InstanceStatistics(id="fork-3", faults=9), InstanceStatistics(id="fork-2", private_bytes=9)]
    async with host(family(), counters).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("less_than_sign")
        await until_shown(pilot, "▼shr MiB")
        await pilot.press("less_than_sign")
        await until_shown(pilot, "▼priv MiB")
        assert shown_rows(pilot) == ["source", "fork-2", "fork-1", "fork-3"]
        await pilot.press("O")
        await until_shown(pilot, "▲priv MiB")
        assert shown_rows(pilot) == ["source", "fork-1", "fork-3", "fork-2"]
        await pilot.press("colon", *"sort faults", "enter")
        await until_shown(pilot, "▼faults ")
        assert shown_rows(pilot) == ["source", "fork-3", "fork-1", "fork-2"]
