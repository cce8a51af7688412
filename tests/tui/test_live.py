"""The dashboard on a real supervisor: what its keys do there, what is refused, and what happens when it goes away."""

import asyncio
import contextlib
import re
import signal
from collections.abc import AsyncIterator, Iterator

import pytest
from textual.pilot import Pilot

from forktui.client import silence
from forktui.text.quantities import size
from forktui.tui.app import ForkTui
from forktui.tui.messages import ConsoleWanted
from forktui.tui.screens.dialogs import Confirm
from forktui.tui.screens.forms import FormDialog
from forktui.tui.widgets.heat_map import HeatMap
from supervisor.models import CreateRequest, FanOutRequest, State
from tests.harness.pilot import screen_text, tree, until, until_shown
from tests.harness.supervisor_process import Home, RunningSupervisor, supervisor, walking_source
from tests.harness.verified_guests import standby_source

SIZE = (120, 40)

pytestmark = pytest.mark.usefixtures("plain_environment")


@contextlib.asynccontextmanager
async def dashboard(running: RunningSupervisor, focus: str = "source") -> AsyncIterator[Pilot[None]]:
    """A dashboard on a supervisor, as soon as it shows the instance."""
    app = ForkTui(running.home.socket, on_mount_focus=focus)
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until(pilot, lambda: named(pilot, focus) is not None)
        await until(pilot, lambda: tree(pilot).cursor_id == named(pilot, focus))
        yield pilot


def app_of(pilot: Pilot[None]) -> ForkTui:
    """The dashboard's application."""
    assert isinstance(pilot.app, ForkTui)
    return pilot.app


def named(pilot: Pilot[None], name: str) -> str | None:
    """The id of the instance of this name, as the dashboard knows it."""
    world = app_of(pilot).dashboard.world
    return next((instance.id for instance in world.instances.values() if instance.name == name), None)


def state(pilot: Pilot[None], name: str) -> State | None:
    """The state of the instance of this name; None while something is under way on it, as a key would be told."""
    instance = app_of(pilot).dashboard.world.instances.get(named(pilot, name) or "")
    return instance.state if instance is not None and instance.operation is None else None


def line(pilot: Pilot[None], name: str) -> str:
    """The line of the tree that shows the instance of this name."""
    lines = screen_text(pilot).splitlines()
    return next((shown for shown in lines if f" {name} " in shown), "")


async def test_the_main_job_from_the_keyboard(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await walking_source(running.client)
        async with dashboard(running) as pilot:
            assert "embedded VMM" in screen_text(pilot)

            await pilot.press("s")
            await until(pilot, lambda: state(pilot, "source") is State.STANDBY)
            await until(pilot, lambda: "Standby" in line(pilot, "source"))

            await pilot.press("f", "enter")
            await until(pilot, lambda: state(pilot, "source-1") is State.RUNNING)
            await until_locked_by(pilot, 1)

            await pilot.press("r")
            await until_shown(pilot, "(source-1)")
            assert state(pilot, "source") is State.STANDBY

            await until(pilot, lambda: recorded_pages(pilot) > 0)
            await pilot.press("F")
            await until(pilot, lambda: isinstance(pilot.app.screen, FormDialog))
            await pilot.press(*"3", "enter")
            await until_locked_by(pilot, 4)
            await until(pilot, lambda: verified(pilot, "source-4"))
            assert prefetched(pilot, "source-4") > 0

            for expected in (3, 2, 1):
                await pilot.press("end", "d")
                await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
                await pilot.press("y")
                await until_locked_by(pilot, expected)
            await pilot.press("end", "d")
            await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
            await pilot.press("y")
            await until(pilot, lambda: named(pilot, "source-1") is None)
            await until(pilot, lambda: "locked" not in line(pilot, "source"))

            await pilot.press("r")
            await until_shown(pilot, "recorded hot pages; the next fork records anew")
            await pilot.press("y")
            await until(pilot, lambda: state(pilot, "source") is State.RUNNING)
            await pilot.press("x")
            await until(pilot, lambda: isinstance(pilot.app.screen, Confirm))
            await pilot.press("y")
            await until(pilot, lambda: state(pilot, "source") is State.STOPPED)
            await pilot.press("r")
            await until(pilot, lambda: state(pilot, "source") in (State.INITIALIZING, State.RUNNING))


async def test_a_whole_tree_goes_after_a_question_that_says_what_goes(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await standby_source(running.client)
        async with dashboard(running) as pilot:
            await pilot.press("f", "enter")
            await until(pilot, lambda: private_bytes(pilot, "source-1") > 1 << 20)
            await until_locked_by(pilot, 1)
            await pilot.press("home", "d")
            shown = await until_shown(pilot, "Delete source and the fork below it?")
            assert re.search(r"What goes: 2 instances, 1 of them running\.", shown)
            assert re.search(r"That frees [0-9.]+ MiB on disk and [0-9.]+ MiB of private memory", shown)
            await pilot.press("y")
            await until(pilot, lambda: not app_of(pilot).dashboard.world.instances)


async def until_locked_by(pilot: Pilot[None], forks: int) -> None:
    """Wait until the source's line has the badge and this fork_count."""
    await until(pilot, lambda: re.search(rf"locked +{forks} ", line(pilot, "source")))


async def test_the_console_of_an_instance_that_has_just_gone_is_not_opened(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await walking_source(running.client)
        async with dashboard(running) as pilot:
            app_of(pilot).post_message(ConsoleWanted("gone"))
            await pilot.pause()
            assert app_of(pilot).screen is app_of(pilot).dashboard
        await running.client.delete("source")


def recorded_pages(pilot: Pilot[None]) -> int:
    """How many hot pages the only template has."""
    return max((template.recorded_pages for template in app_of(pilot).dashboard.world.templates.values()), default=0)


def verified(pilot: Pilot[None], name: str) -> bool:
    """Whether the instance's guest has verified its memory."""
    guest = app_of(pilot).dashboard.world.statistics_of(named(pilot, name) or "").guest
    return guest is not None and guest.passes > 0 and guest.corrupt is None


def private_bytes(pilot: Pilot[None], name: str) -> int:
    """How much private memory the instance's VMM has, as last sampled."""
    return app_of(pilot).dashboard.world.statistics_of(named(pilot, name) or "").private_bytes


def prefetched(pilot: Pilot[None], name: str) -> int:
    """How many pages were prefetched for the instance."""
    return app_of(pilot).dashboard.world.statistics_of(named(pilot, name) or "").prefetched_pages


async def test_the_page_map_and_the_console_of_a_fork_are_shown(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        source = await standby_source(running.client)
        await running.client.fan_out(source.id, FanOutRequest(count=1, name_prefix="vm", target_state="Running"))
        async with dashboard(running, "vm-1") as pilot:
            heat_map = pilot.app.screen.query_one(HeatMap)
            await until(pilot, lambda: verified(pilot, "vm-1"))
            shown = await until_shown(pilot, "faulted")
            assert "pages of 4 KiB" in shown
            assert heat_map.cells > 100
            await pilot.press("c")
            await until_shown(pilot, "Console of vm-1")
            await until_shown(pilot, "pass 1")
            await pilot.press("escape")
            await pilot.press("home")
            await until_shown(pilot, "no VMM, so no pages")


async def test_a_checkpoint_is_taken_of_what_runs_and_refused_of_what_does_not(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await walking_source(running.client)
        async with dashboard(running) as pilot:
            await pilot.press("C", "enter")
            await until_shown(pilot, "checkpoints: source-1 (paused ")
            await until(pilot, lambda: state(pilot, "source-1") is State.STANDBY)
            assert state(pilot, "source") is State.RUNNING
            await until(pilot, lambda: "Standby" in line(pilot, "source-1"))
            await pilot.press("end", "C")
            await until_shown(pilot, "Checkpoint refused:")


async def test_a_marked_family_is_deleted_forks_before_their_sources(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        source = await standby_source(running.client)
        await running.client.fan_out(source.id, FanOutRequest(count=3, name_prefix="vm", target_state="Standby"))
        await running.client.fan_out("vm-2", FanOutRequest(count=2, name_prefix="inner", target_state="Standby"))
        async with dashboard(running) as pilot:
            await until(pilot, lambda: len(tree(pilot).rows) == 6)
            await pilot.press(*["space"] * 6)
            await until_shown(pilot, "6 marked")
            await pilot.press("d")
            await until_shown(pilot, "Delete 6 instances?")
            await pilot.press("y")
            await until(pilot, lambda: not tree(pilot).rows)
            await until_shown(pilot, "deleted: inner-1, inner-2, vm-1, +3")


async def test_what_goes_with_a_marked_family_is_what_the_supervisor_plans(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        source = await standby_source(running.client)
        await running.client.fan_out(source.id, FanOutRequest(count=2, name_prefix="vm", target_state="Standby"))
        plan = await running.client.deletion_plan("source", cascade=True)
        async with dashboard(running) as pilot:
            await until(pilot, lambda: len(tree(pilot).rows) == 3)
            await pilot.press(*["space"] * 3, "d")
            await until_shown(pilot, f"That frees {size(plan.disk_bytes)} on disk")
            await pilot.press("n", "u", "end", "d")
            await until_shown(pilot, "What goes: 1 instance.")
            await pilot.press("enter")


async def test_an_instance_is_made_and_forked_from_an_empty_screen(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        app = ForkTui(running.home.socket)
        async with app.run_test(size=SIZE, notifications=True) as pilot:
            await until(pilot, lambda: app.dashboard.connection.live)
            await pilot.press("n", *"web")
            await until_shown(pilot, "pagewalker: boots at once")
            await pilot.press("tab", "tab", *"33kB", "enter")
            await until_shown(pilot, "size 33kB is refused: a VM may have")
            assert state(pilot, "web") is None
            await pilot.press("ctrl+u", *"64MB", "enter")
            await until(pilot, lambda: state(pilot, "web") is State.RUNNING)
            await until(pilot, lambda: app.screen is app.dashboard)
            await pilot.press("colon", *"standby web", "enter")
            await until(pilot, lambda: state(pilot, "web") is State.STANDBY)
            await pilot.press("colon", *"fan-out web 2 --name-prefix many --target-state Standby", "enter")
            await until(pilot, lambda: state(pilot, "many-2") is State.STANDBY)
            await until(pilot, lambda: app.screen is app.dashboard)


async def test_a_name_that_is_taken_meanwhile_is_refused_in_the_form(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await standby_source(running.client)
        async with dashboard(running) as pilot:
            await pilot.press("f", *"late")
            dialog = pilot.app.screen
            assert isinstance(dialog, FormDialog)
            await running.client.create(CreateRequest(name="late", image="pagewalker", size="64MB"))
            await pilot.press("enter")
            assert "Fork source" in await until_shown(pilot, "the name is taken by instance")
            assert dialog.values["name"] == "late"


async def test_what_the_supervisor_refuses_is_said_in_its_own_words(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await walking_source(running.client)
        async with dashboard(running) as pilot:
            # What the dashboard knows is a moment old: here it does not know yet that the source is in Standby.
            world = app_of(pilot).dashboard.world
            await running.client.standby("source")
            app_of(pilot).dashboard.world = world
            app_of(pilot).dashboard.action_do("standby")
            await until_shown(pilot, "source: standby refused: it is Standby")


async def test_a_lost_supervisor_is_said_and_actions_are_off_until_it_is_back(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await standby_source(running.client)
        async with dashboard(running) as pilot:
            await running.end(signal.SIGKILL)
            shown = await until_shown(pilot, "Not connected: data is")
            assert "○ lost" in shown
            assert named(pilot, "source") is not None
            await pilot.press("f")
            await until_shown(pilot, "Fork refused: not connected")
            async with supervisor(embedded):
                await pilot.press("ctrl+r")
                await until_shown(pilot, "● live")
                assert "Not connected" not in screen_text(pilot)
                await pilot.press("f", "enter")
                await until(pilot, lambda: state(pilot, "source-1") is State.RUNNING)


@contextlib.contextmanager
def stopped(process: asyncio.subprocess.Process) -> Iterator[None]:
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


async def test_a_frozen_supervisor_is_not_live_and_all_goes_on_when_it_does(
    embedded: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(silence, "ASK_SECONDS", 1.0)
    async with supervisor(embedded) as running:
        await standby_source(running.client)
        async with dashboard(running) as pilot:
            for _ in ("once", "and again"):
                with stopped(running.process):
                    shown = await until_shown(pilot, "what is shown may be old, actions are off")
                    assert re.search(r"No answer for \ds: ", shown)
                    assert f"(pid {running.process.pid}) has not answered for 1 s: it is st" in shown
                    assert "○ no answer" in shown
                    assert "● live" not in shown
                    await until(pilot, lambda: re.search(r"No answer for ([3-9]|\d\d+)s", screen_text(pilot)))
                    await pilot.press("f")
                    await until_shown(pilot, "Fork refused: not connected")
                await until_shown(pilot, "● live")
                await until(pilot, lambda: "No answer" not in screen_text(pilot))
            await pilot.press("f", "enter")
            await until(pilot, lambda: state(pilot, "source-1") is State.RUNNING)


async def test_a_dashboard_waits_for_a_supervisor_that_is_not_there_yet(embedded: Home) -> None:
    embedded.run.mkdir()
    app = ForkTui(embedded.socket)
    async with app.run_test(size=SIZE) as pilot:
        await until_shown(pilot, "no supervisor listens there")
        async with supervisor(embedded) as running:
            await walking_source(running.client)
            await pilot.press("ctrl+r")
            await until(pilot, lambda: named(pilot, "source") is not None)
