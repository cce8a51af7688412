"""The dashboard on hosts that are told: moving, marking, filtering, asking, refusing."""

import time
from collections.abc import Sequence

import pytest
from textual.widgets import Button, Input

from forktui.tui.app import ForkTui
from forktui.tui.screens.dashboard import Dashboard
from forktui.tui.screens.dialogs import Confirm, FanOutPrompt
from supervisor.models import (
    Deletion,
    DeletionPlan,
    HostStatistics,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    InstanceStatistics,
    State,
    Statistics,
)
from tests.harness.pilot import (
    Wishes,
    clean_environment,
    hear,
    host,
    screen_text,
    shown_rows,
    told,
    tree,
    until,
    until_shown,
)
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.told_hosts import (
    BEGIN,
    FORKS,
    SUPERVISOR,
    chain,
    family,
    fan,
    fork_of,
    instance,
    locked_source,
    reset,
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of this terminal in the tests."""
    clean_environment(monkeypatch)


# Moving


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
        assert "Nothing is selected" in screen_text(pilot)


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
        await pilot.press("o", "o", "o")
        assert "by faults" in await until_shown(pilot, "(by faults)")
        assert shown_rows(pilot) == ["source", "fork-3", "fork-1", "fork-2"]
        await pilot.press("o")
        assert shown_rows(pilot) == ["source", "fork-2", "fork-1", "fork-3"]


# Filtering


async def test_the_filter_keeps_sources_and_ends_with_escape() -> None:
    async with host([*family(), instance("other", age=9)]).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("slash", *"fork-2")
        await until(pilot, lambda: shown_rows(pilot) == ["source", "fork-2"])
        await pilot.press("enter")
        assert pilot.app.focused is tree(pilot)
        await pilot.press("j")
        assert tree(pilot).cursor_id == "fork-2"
        await pilot.press("escape")
        await until(pilot, lambda: shown_rows(pilot) == ["source", *FORKS, "other"])
        assert tree(pilot).cursor_id == "fork-2"


async def test_a_filter_puts_the_cursor_on_what_matches_and_not_on_what_leads_there() -> None:
    app = Wishes(host([*chain(3), *family()]))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        assert tree(pilot).cursor_id == "i0"
        await pilot.press("slash", *"fork-3")
        await until(pilot, lambda: shown_rows(pilot) == ["source", "fork-3"])
        assert tree(pilot).cursor_id == "fork-3"
        await pilot.press("enter", "d", "y")
        await until(pilot, lambda: app.wishes)
    assert app.wishes == [("delete", ("fork-3",), 1)]


async def test_the_cursor_is_on_a_match_also_where_the_one_it_was_on_goes() -> None:
    async with host([*family(), instance("other", age=9)]).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("slash", *"fork-x", "backspace", "enter")
        await until(pilot, lambda: shown_rows(pilot) == ["source", *FORKS])
        assert tree(pilot).cursor_id == "fork-1"
        await hear(pilot, InstanceDeleted(id="fork-1"))
        await until(pilot, lambda: shown_rows(pilot) == ["source", "fork-2", "fork-3"])
        assert tree(pilot).cursor_id == "fork-2"


async def test_enter_takes_the_cursor_from_a_source_to_its_first_match() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("slash", *"fork", "enter", "k")
        assert tree(pilot).cursor_id == "source"
        await pilot.press("slash", "enter")
        assert tree(pilot).cursor_id == "fork-1"


async def test_keys_are_text_while_a_filter_is_typed() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("slash", *"dqxf")
        assert pilot.app.screen.query_one("#filter", Input).value == "dqxf"
        assert isinstance(pilot.app.screen, Dashboard)


# Acting


async def test_marks_are_what_actions_act_on() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j", "space", "space", "k", "k", "k")
        await until_shown(pilot, "2 marked")
        await pilot.press("s")
        await until(pilot, lambda: app.wishes)
        assert app.wishes == [("standby", ("fork-1", "fork-2"), 1)]
        assert tree(pilot).marked == frozenset()


async def test_a_deleted_instance_loses_its_mark() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("G", "space")
        await hear(pilot, InstanceDeleted(id="fork-3"))
        await until(pilot, lambda: tree(pilot).marked == frozenset())
        await pilot.press("space", "u")
        assert tree(pilot).marked == frozenset()


@pytest.mark.parametrize(("answer", "wishes"), [("enter", 0), ("escape", 0), ("n", 0), ("y", 1)])
async def test_a_deletion_is_asked_about_and_no_is_the_default(answer: str, wishes: int) -> None:
    counters = [InstanceStatistics(id="fork-1", private_bytes=18 << 20)]
    app = Wishes(host(family(), counters))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j", "d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        said = screen_text(pilot)
        assert "Delete fork-1?" in said
        assert "18 MiB of private memory" in said
        assert isinstance(app.focused, Button) and app.focused.id == "no"
        await pilot.press(answer)
        await until(pilot, lambda: app.screen is app.dashboard)
        await pilot.pause()
        assert len(app.wishes) == wishes


async def test_yes_can_be_reached_and_pressed() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j", "x")
        await until_shown(pilot, "What is in memory is lost")
        await pilot.press("right", "enter")
        await until(pilot, lambda: app.wishes == [("stop", ("fork-1",), 1)])


async def test_a_deletion_tells_what_stays_below() -> None:
    copy = fork_of("fork-1", "copy-1", fork_kind="copy", age=9)
    async with host([*family(), copy]).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j", "d")
        await until_shown(pilot, "Below it, copy-1 stay")


class Planning(RecordedSupervisor):
    """Tells of a host, and plans the deletion of its family."""

    async def deletion_plan(self, reference: str, *, cascade: bool = False) -> DeletionPlan:
        assert (reference, cascade) == ("source", True)
        gone = [
            Deletion(id=name, name=name, state=State.RUNNING, running=True, disk_bytes=1 << 20, private_bytes=18 << 20)
            for name in FORKS
        ]
        root = Deletion(
            id="source", name="source", state=State.STANDBY, running=False, disk_bytes=1 << 27, private_bytes=0
        )
        return DeletionPlan(deletions=(*gone, root), running=3, disk_bytes=131 << 20, private_bytes=54 << 20)


@pytest.mark.parametrize(("answer", "wishes"), [("enter", []), ("y", [("delete_tree", ("source",), 1)])])
async def test_a_locked_source_is_offered_with_its_tree_and_no_is_the_default(
    answer: str, wishes: list[object]
) -> None:
    app = Wishes(ForkTui(Planning([reset(family())])))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        said = screen_text(pilot)
        assert "Delete source and the 3 forks below it?" in said
        assert "What goes: 4 instances, 3 of them running." in said
        assert "131 MiB on disk and 54 MiB of private memory" in said
        assert isinstance(app.focused, Button) and app.focused.id == "no"
        await pilot.press(answer)
        await until(pilot, lambda: app.screen is app.dashboard)
        await until(pilot, lambda: app.wishes == wishes)


async def test_a_fork_of_a_running_instance_is_a_copy_after_a_question() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("f")
        await until(pilot, lambda: app.wishes == [("fork", ("source",), 1)])
        await pilot.press("j", "f")
        await until_shown(pilot, "C makes one of it")
        await pilot.press("y")
        await until(pilot, lambda: app.wishes[1:] == [("fork", ("fork-1",), 1)])


async def test_a_fork_is_detached_after_a_question_that_says_what_it_takes() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j", "t")
        await until_shown(pilot, "It gets all of its memory: 128 MiB at most")
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.dashboard)
        assert app.wishes == []
        await pilot.press("t", "y")
        await until(pilot, lambda: app.wishes == [("detach", ("fork-1",), 1)])


async def test_a_fan_out_takes_only_a_number_that_can_be() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("F")
        await until(pilot, lambda: isinstance(app.screen, FanOutPrompt))
        for number in ("", "0", "4097"):
            app.screen.query_one(Input).value = number
            await pilot.press("enter")
            await until_shown(pilot, "a number from 1 to 4096")
            assert isinstance(app.screen, FanOutPrompt)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.dashboard)
        assert app.wishes == []


async def test_a_fan_out_asks_how_many() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("F")
        await until_shown(pilot, "How many forks of source?")
        await until_shown(pilot, "fits: up to 431 (memory)")
        # As high as what it says: the instance's memory, its hot pages, and how many fit.
        assert app.screen.query_one(".consequences").size.height == 3
        await pilot.press(*"25", "enter")
        await until(pilot, lambda: app.wishes == [("fan_out", ("source",), 25)])


async def test_a_refusal_is_said_once_within_its_time() -> None:
    async with host(family()).run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("r", "r", "r")
        await until_shown(pilot, "source has 3 share_memory forks")
        assert len(pilot.app._notifications) == 1


async def test_read_only_is_shown_and_every_change_refused() -> None:
    event = reset(family())
    snapshot = event.snapshot.model_copy(update={"supervisor": SUPERVISOR.model_copy(update={"writable": False})})
    async with told(event.model_copy(update={"snapshot": snapshot})).run_test(
        size=(120, 40), notifications=True
    ) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        assert "READ-ONLY" in screen_text(pilot)
        await pilot.press("f")
        await until_shown(pilot, "Fork refused: read-only")


# Many


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
