"""The details in full, by one key: on a real supervisor, and while what they tell changes or goes."""

import asyncio
import re

import pytest
from textual.pilot import Pilot

from forktui.tui.app import ForkTui
from forktui.tui.screens.inspection import Inspection
from forktui.view.kept_lines import KeptLines, Place
from supervisor.models import Event, FanOutRequest, InstanceDeleted, MachineInfo
from tests.harness.pilot import hear, host, screen_text, tree, until, until_shown
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.told_hosts import family, fork_of, locked_source, reset
from tests.harness.verified_guests import standby_source
from tests.tui.test_live import app_of, dashboard, verified

pytestmark = pytest.mark.usefixtures("plain_environment")


def read_whole(pilot: Pilot[None]) -> str:
    """All lines of the screen that is open."""
    screen = pilot.app.screen
    assert isinstance(screen, Inspection)
    return "\n".join("".join(text for text, _ in line) for line in screen._lines)


async def test_the_details_of_a_fork_and_of_its_source_in_full(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        source = await standby_source(running.client)
        await running.client.fan_out(source.id, FanOutRequest(count=2, name_prefix="vm"))
        async with dashboard(running, "vm-1") as pilot:
            await until(pilot, lambda: verified(pilot, "vm-1"))
            await pilot.press("I")
            screen = pilot.app.screen
            assert isinstance(screen, Inspection)
            await until(pilot, lambda: screen._known.fold is not None)
            said = read_whole(pilot)
            world = app_of(pilot).dashboard.world
            (template,) = world.templates.values()
            for line in (
                r"lock +holds that of source, as 1 other does; t detaches it, which lets go",
                r"latency +mean [0-9.]+ .s  p50 <[0-9.]+ .s  p95 <",
                rf"reads +{template.id} · page server pid {template.page_server_pid} · 2 forks read it",
                rf"consoles +pid {world.host.console_holder_pid}  takes what it prints",
                rf"owned by +supervisor pid {running.process.pid}",
                r"layers +1 layer, [0-9.]+ MiB on disk",
                r"mem\.0 +[0-9.]+ MiB of 128 MiB  4 names: others have it too",
                r"VM gen id different: new at each load; the guest saw it",
                r"MAC +it has no network interface",
            ):
                assert re.search(line, said), f"{line}\n{said}"
            assert world.host.console_holder_pid is not None
            await pilot.press("end")
            await until_shown(pilot, "█ faulted")
            await pilot.press("I", "home", "I")
            said = await until_shown(pilot, "◆ vm-2")
            assert "holds the lock: d deletes it, t detaches it" in said
            await running.client.detach("vm-2")
            await until_shown(pilot, "holds no lock: detached, it has all of its memory")


@pytest.mark.parametrize("size", [(40, 12), (60, 20), (80, 24), (200, 50)])
async def test_it_fits_any_terminal_and_says_when_its_instance_has_gone(size: tuple[int, int]) -> None:
    async with host(family()).run_test(size=size) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j", "I")
        await until_shown(pilot, "Lock")
        assert "holds that of source" in " ".join(read_whole(pilot).split())
        await hear(pilot, InstanceDeleted(id="fork-1"))
        await until_shown(pilot, "fork-1  deleted")
        assert "holds that of source" in " ".join(read_whole(pilot).split())
        await pilot.press("I")
        await until(pilot, lambda: not isinstance(pilot.app.screen, Inspection))


async def test_a_source_without_pages_has_the_whole_width_for_what_unlocks_it() -> None:
    names = [f"a-fork-with-a-rather-long-name-{n}" for n in range(6)]
    forks = [fork_of("source", name, age=n) for n, name in enumerate(names)]
    async with host([locked_source("source", names), *forks]).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        inspector = pilot.app.screen.query_one("#inspector")
        facts, memory = pilot.app.screen.query_one("#facts"), pilot.app.screen.query_one("#memory")
        await until(pilot, lambda: (memory.display, facts.size.width) == (False, inspector.size.width - 2))
        said = " ".join(re.sub("  +", "\n", screen_text(pilot)).split())
        assert all(name in said for name in names)
        await pilot.press("j")
        await until(pilot, lambda: memory.display)
        await pilot.pause()
        # What was painted before it was hidden is not what it shows when it comes back.
        assert "faults/s of" not in screen_text(pilot)
        assert facts.size.width < inspector.size.width * 0.6


class SlowSupervisor(RecordedSupervisor):
    """Takes its time to say what an instance's directory has."""

    def __init__(self, *events: Event) -> None:
        super().__init__(events)
        self.asked = 0
        self.answers = asyncio.Event()

    async def machine(self, reference: str) -> MachineInfo:
        self.asked += 1
        await self.answers.wait()
        return MachineInfo(id=reference, directory="/srv/vm")


async def test_an_answer_that_takes_longer_than_until_the_next_look_is_shown_all_the_same() -> None:
    slow = SlowSupervisor(reset(family()))
    async with ForkTui(slow).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("I")
        await until_shown(pilot, "Lock")
        screen = pilot.app.screen
        assert isinstance(screen, Inspection)
        await until(pilot, lambda: slow.asked)
        for _ in range(3):
            screen._look()
            await pilot.pause()
        assert slow.asked == 1
        slow.answers.set()
        await until(pilot, lambda: screen._known.machine is not None)
        screen._look()
        await until(pilot, lambda: slow.asked == 2)


def test_a_place_behind_all_lines_is_where_the_last_is() -> None:
    kept = KeptLines(10)
    assert kept.row_of(Place(0)) == kept.row_of(Place(7, 3)) == 0
    kept.add([[("one", "plain")], [("two", "plain")]])
    assert [kept.row_of(Place(number)) for number in (0, 1, 2, 9)] == [0, 1, 1, 1]


async def test_lines_that_become_fewer_are_shown_from_where_they_end() -> None:
    async with host([locked_source("source", ["fork-1"])]).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("I")
        await until_shown(pilot, "Lock")
        screen = pilot.app.screen
        assert isinstance(screen, Inspection)
        await pilot.press("end")
        screen.view.replace([[("all that is left", "plain")]])
        await until_shown(pilot, "all that is left")
