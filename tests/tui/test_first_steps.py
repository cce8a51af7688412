"""A host without instances: what one does next is said in the tree's place, and what leaving does to a private one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.actions.leaving import leaving
from forktui.tui.app import ForkTui
from forktui.tui.screens.dialogs import Confirm
from forktui.view.first_steps import Steps, first_steps
from forktui.view.rows import text_of
from forktui.view.styled_lines import line_width
from supervisor.models import Instance, InstanceChanged, InstanceDeleted, Reset, State
from tests.harness.pilot import hear, screen_text, told, until, until_shown
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.told_hosts import SUPERVISOR, instance, reset, world_of

pytestmark = pytest.mark.usefixtures("plain_environment")

STEPS = Steps([("n", "makes one"), ("s", "standby")], [("?", "lists every key")])
NONE_HERE = "there is no firecracker in PATH: install it, or name the binary"


def empty(**about: object) -> Reset:
    """A host without instances, whose supervisor says this of itself."""
    whole = reset([])
    return Reset(
        snapshot=whole.snapshot.model_copy(update={"supervisor": SUPERVISOR.model_copy(update=about)}),
    )


def said(steps: Steps, **about: object) -> str:
    return "\n".join(map(text_of, first_steps(SUPERVISOR.model_copy(update=about), steps, 200)))


def test_what_one_does_next_is_said_unless_it_is_forbidden() -> None:
    assert "n     makes one" in said(STEPS)
    refused = said(Steps(STEPS.makes, STEPS.looks, forbidden="read-only; start it without"))
    assert "makes one" not in refused
    assert "None can be made from here: read-only; start it without." in refused
    assert "?     lists every key" in refused


def test_why_firecracker_cannot_run_is_said_with_what_mends_it() -> None:
    assert f"Firecracker cannot run here: {NONE_HERE}." in said(STEPS, firecracker_problem=NONE_HERE)
    assert "Firecracker" not in said(STEPS)


def test_a_supervisor_that_is_waited_for_is_said_to_be() -> None:
    lines = first_steps(None, Steps(STEPS.makes, STEPS.looks, waits_for="/s.sock: no supervisor listens there"), 80)
    assert "/s.sock: no supervisor listens there" in "\n".join(map(text_of, lines))
    assert "makes one" not in "\n".join(map(text_of, lines))


@given(st.text(alphabet="ab 漢字/…-", max_size=300), st.integers(20, 130), st.booleans())
def test_no_line_is_wider_than_there_is_room(foreign: str, width: int, private: bool) -> None:
    steps = Steps(STEPS.makes, [("?", foreign)], private=private)
    about = {"data_dir": foreign, "firecracker_problem": foreign}
    for line in first_steps(SUPERVISOR.model_copy(update=about), steps, width):
        assert line_width(line) <= width


async def test_they_are_there_until_there_is_an_instance_and_again_when_none_is_left() -> None:
    async with told(empty()).run_test(size=(120, 40)) as pilot:
        shown = await until_shown(pilot, "There is no instance yet.")
        for key in ("n ", "s ", "F "):
            assert any(line.strip().startswith(key) for line in shown.splitlines())
        assert "Instances are kept in /var/lib/forktui." in shown
        await hear(pilot, InstanceChanged(instance=instance("web")))
        await until_shown(pilot, "● Running")
        assert "There is no instance" not in screen_text(pilot)
        await hear(pilot, InstanceDeleted(id="web"))
        await until_shown(pilot, "There is no instance yet.")
        await pilot.press("n")
        await until_shown(pilot, "A new instance")


@pytest.mark.parametrize("size", [(80, 24), (60, 20), (40, 12)])
async def test_on_a_small_terminal_what_is_left_out_is_marked(size: tuple[int, int]) -> None:
    async with told(empty(firecracker_problem=NONE_HERE)).run_test(size=size) as pilot:
        shown = await until_shown(pilot, "There is no instance yet.")
        assert "Instances are kept in" in shown or any(line.strip() == "…" for line in shown.splitlines())


def private(*instances: Instance) -> ForkTui:
    return ForkTui(RecordedSupervisor([reset(instances)]), private=True, title="private supervisor")


async def test_a_private_supervisor_is_labelled_and_left_after_a_question_where_vms_run() -> None:
    app = private(instance("web"))
    async with app.run_test(size=(120, 40)) as pilot:
        assert "private supervisor" in await until_shown(pilot, "● Running")
        await pilot.press("q")
        await until(pilot, lambda: isinstance(app.screen, Confirm))
        assert "Quit, while 1 VM runs on a private supervisor?" in screen_text(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.dashboard)
        await pilot.press("q", "y")
    assert app.return_code == 0


async def test_a_private_supervisor_without_vms_that_run_is_left_at_once() -> None:
    app = private()
    async with app.run_test(size=(120, 40)) as pilot:
        await until_shown(pilot, "This supervisor is private")
        await pilot.press("q")
    assert app.return_code == 0


def test_the_question_counts_what_runs() -> None:
    assert leaving(world_of(instance("rests", state=State.STANDBY))) is None
    asked = leaving(world_of(instance("a"), instance("b"), instance("c", state=State.STOPPED)))
    assert asked is not None
    assert asked.asked.startswith("Quit, while 2 VMs run")
