"""The dashboard on hosts that are told: marking, asking before what cannot be undone, refusing."""

import pytest
from textual.widgets import Button, Input

from forktui.tui.app import ForkTui
from forktui.tui.screens.dialogs import Confirm, Dialog
from forktui.tui.screens.forms import FormDialog
from supervisor.models import Deletion, DeletionPlan, InstanceChanged, InstanceDeleted, InstanceStatistics, State
from tests.harness.pilot import Wishes, hear, host, screen_text, told, tree, until, until_shown
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.told_hosts import FORKS, SUPERVISOR, family, fork_of, reset

pytestmark = pytest.mark.usefixtures("plain_environment")


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


async def test_it_is_said_how_many_of_the_marked_are_not_shown() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j", "space", "space", "k", "k", "k")
        await until_shown(pilot, " 2 marked  f Fork")
        await pilot.press("slash", *"fork-3", "enter")
        await until_shown(pilot, " 2 marked, 2 not shown ")
        await pilot.press("escape")
        await until_shown(pilot, " 2 marked  f Fork")


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


@pytest.mark.parametrize(("key", "answer"), [("d", "y"), ("x", "y"), ("t", "y"), ("f", "enter"), ("C", "enter")])
async def test_an_answer_is_for_whom_was_asked_about_and_for_no_other_of_that_name(key: str, answer: str) -> None:
    """The one that was asked about is deleted, and another of its name made, while the question stands."""
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j", key)
        await until(pilot, lambda: isinstance(app.screen, Dialog))
        await hear(pilot, InstanceDeleted(id="fork-1"))
        await hear(pilot, InstanceChanged(instance=fork_of("source", "fork-9").model_copy(update={"name": "fork-1"})))
        await until_shown(pilot, "fork-1 has gone meanwhile")
        await pilot.press(answer)
        await until_shown(pilot, "refused: no instance is selected")
        assert isinstance(app.screen, Dialog)
        assert app.wishes == []


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


@pytest.mark.parametrize(("answer", "wishes"), [("enter", []), ("y", [("delete", ("source",), 1)])])
async def test_a_locked_source_is_offered_with_its_tree_and_no_is_the_default(
    answer: str, wishes: list[object]
) -> None:
    app = Wishes(ForkTui(Planning([reset(family())])))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("d")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        said = await until_shown(pilot, "What goes: 4 instances")
        assert "Delete source and the 3 forks below it?" in said
        assert "What goes: 4 instances, 3 of them running." in said
        assert "131 MiB on disk and 54 MiB of private memory" in said
        assert isinstance(app.focused, Button) and app.focused.id == "no"
        await pilot.press(answer)
        await until(pilot, lambda: app.screen is app.dashboard)
        await until(pilot, lambda: app.wishes == wishes)
        assert all(values == {"cascade": "true"} for values in app.values)


async def test_a_fork_of_a_running_instance_is_said_to_be_a_copy() -> None:
    app = Wishes(host(family()))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("f", "enter")
        await until(pilot, lambda: app.wishes == [("fork", ("source",), 1)])
        await until(pilot, lambda: app.screen is app.dashboard)
        await pilot.press("j", "f")
        await until_shown(pilot, "paused while its memory is written")
        assert not app.screen.query("#memory_backend")
        await pilot.press("enter")
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
        await until(pilot, lambda: isinstance(app.screen, FormDialog))
        for number, refusal in (("", "required"), ("0", "than or equal to 1"), ("4097", "than or equal to 4096")):
            app.screen.query_one("#count", Input).value = number
            await until_shown(pilot, refusal)
            await pilot.press("enter")
            await until_shown(pilot, refusal)
            assert isinstance(app.screen, FormDialog)
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
        await pilot.press(*"25", "enter")
        await until(pilot, lambda: app.wishes == [("fan-out", ("source",), 25)])


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
