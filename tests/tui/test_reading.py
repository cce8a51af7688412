"""Consoles and events to be read: in full, held, searched, filtered; and nothing of them is a control character."""

import sys
from collections.abc import Iterator

import pytest
from textual.pilot import Pilot

from forktui.client.api import ApiError, SupervisorUnreachableError
from forktui.tui.app import ForkTui
from forktui.tui.screens.console import Console
from forktui.tui.screens.dashboard import Dashboard
from forktui.tui.screens.events import Events
from supervisor.models import InstanceChanged, InstanceDeleted
from tests.harness.own_terminal import HOSTILE, assert_only_drawn, on_a_terminal
from tests.harness.pilot import hear, screen_text, told, tree, until, until_shown
from tests.harness.printing_supervisor import PrintingSupervisor
from tests.harness.told_hosts import family, reset, said

pytestmark = pytest.mark.usefixtures("plain_environment")
SIZE = (120, 40)

CONSOLE = f"""
from forktui.tui.app import ForkTui
from supervisor.models import Activity
from tests.harness.printing_supervisor import PrintingSupervisor
from tests.harness.told_hosts import BEGIN, instance, reset

hostile = {HOSTILE!r}
blanks = "tab\\tand\\rreturn\\x0bvt\\x0cff\\x85nel\\u2028"
lines = [hostile, blanks, "zero\\u200bwidth\\ufeff", hostile * 40_000, "the end"]
vm = instance("vm").model_copy(update={{"name": hostile}})
events = [reset([vm]), Activity(at=BEGIN, level="alarm", message=hostile)]
ForkTui(PrintingSupervisor(events, lines), now=lambda: 0.0).run()
"""


def test_what_a_guest_prints_never_reaches_the_terminal_as_control_bytes() -> None:
    with on_a_terminal(sys.executable, "-c", CONSOLE) as (terminal, _):
        terminal.until("■ ")
        terminal.press("c")
        terminal.until("the end")
        terminal.press("g/OWNED\r")
        terminal.until("2 lines")
        terminal.press("wq")
        terminal.until("─events─")
        terminal.press("E")
        terminal.until("selected instance")
        terminal.press("i")
        terminal.until("Events of")
        terminal.press("q")
        terminal.until("─events─")
        terminal.press("q")
        terminal.drain()
    assert_only_drawn(terminal)


async def console(pilot: Pilot[None]) -> Console:
    """Open the console of the first fork."""
    await until(pilot, lambda: tree(pilot).rows)
    await pilot.press("j", "c")
    await until(pilot, lambda: isinstance(pilot.app.screen, Console))
    screen = pilot.app.screen
    assert isinstance(screen, Console)
    return screen


async def test_a_console_says_whose_it_is_whether_it_follows_and_in_which_state_its_vm_is() -> None:
    supervisor = PrintingSupervisor([reset(family())], [f"line {number}" for number in range(300)])
    async with ForkTui(supervisor).run_test(size=SIZE) as pilot:
        await console(pilot)
        shown = await until_shown(pilot, "line 299")
        assert "Console of fork-1  ● Running  console connected" in shown
        assert "follows" in shown
        await pilot.press("pageup")
        supervisor.print_more("line 300", "line 301")
        shown = await until_shown(pilot, "2 newer (End follows)")
        assert "line 299" not in shown
        stopped = family()[1].model_copy(update={"state": "Stopped", "vmm_pid": None})
        await hear(pilot, InstanceChanged(instance=stopped))
        await until_shown(pilot, "○ Stopped")
        await hear(pilot, InstanceDeleted(id="fork-1"))
        await until_shown(pilot, "Console of fork-1  deleted")
        await pilot.press("G")
        await until_shown(pilot, "line 301")


async def test_a_console_that_is_lost_comes_back_without_a_line_twice_and_ends_with_its_instance(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("forktui.client.feed.FIRST_RETRY_SECONDS", 0.01)
    supervisor = PrintingSupervisor([reset(family())], ["one", "two"])
    async with ForkTui(supervisor).run_test(size=SIZE) as pilot:
        await console(pilot)
        await until_shown(pilot, "two")
        supervisor.lose(SupervisorUnreachableError("the connection was lost"))
        supervisor.print_more("three")
        shown = await until_shown(pilot, "three")
        assert "-- connection lost, it is tried again: the connection was lost --" in shown
        assert "-- connected again --" in shown
        assert shown.count("two") == 1
        supervisor.lose(ApiError(404, "not_found", "fork-1 is deleted"))
        assert "console ended" in await until_shown(pilot, "-- the console has ended: fork-1 is deleted --")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, Dashboard)


async def test_a_console_that_prints_without_end_is_read_no_faster_than_it_is_drawn() -> None:
    printed = 0

    def endless() -> Iterator[str]:
        nonlocal printed
        while True:
            printed += 1
            yield f"line {printed}"

    supervisor = PrintingSupervisor([reset(family())], endless())
    async with ForkTui(supervisor).run_test(size=SIZE) as pilot:
        screen = await console(pilot)
        await until(pilot, lambda: screen.view.dropped)
        await pilot.press("g")
        await until_shown(pilot, "older lines not kept")
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, Dashboard)
        assert printed % 2000 == 0, "it waits for the drawing"


async def test_events_open_in_full_from_anywhere_and_those_of_one_instance_can_be_read() -> None:
    of_fork = said(70, "thing of fork-1").model_copy(update={"instance_id": "fork-1"})
    events = [said(n, f"thing {n:02}") for n in range(60)]
    async with told(reset(family()), *events, of_fork).run_test(size=SIZE) as pilot:
        await until_shown(pilot, "thing of fork-1")
        await pilot.press("j", "E")
        await until(pilot, lambda: isinstance(pilot.app.screen, Events))
        assert "thing 59" in await until_shown(pilot, "thing 40")
        await pilot.press("i")
        assert "thing 59" not in await until_shown(pilot, "Events of fork-1")
        await hear(pilot, said(80, "thing of another"))
        assert "thing of another" not in screen_text(pilot)
        await pilot.press("i")
        await until_shown(pilot, "thing of another")
        await pilot.press("escape", "tab", "enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, Events))


async def test_enter_gives_what_is_read_the_whole_terminal() -> None:
    supervisor = PrintingSupervisor([reset(family())], ["x" * 119])
    async with ForkTui(supervisor).run_test(size=SIZE) as pilot:
        screen = await console(pilot)
        await until_shown(pilot, "xxx")
        await pilot.press("enter")
        await until(pilot, lambda: screen.view.size.width > 114)


async def test_on_a_narrow_terminal_the_last_of_the_keys_are_named() -> None:
    async with told(reset(family())).run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("E")
        assert "follows" in await until_shown(pilot, "Enter whole screen  Esc closes")
