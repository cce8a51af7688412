"""The fan-out on the screen: while it goes on, once it has ended, dismissed, cancelled, and looked at again."""

import asyncio
import re

import pytest

from forktui.model.bursts import Burst
from forktui.tui.app import ForkTui
from forktui.tui.screens.bursts import FanOuts
from supervisor.models import FanOutRequest
from tests.harness.pilot import screen_text, told, tree, until, until_shown
from tests.harness.recorded_burst import BURST, until_made
from tests.harness.recorded_supervisor import RecordedSupervisor, Recording
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.told_hosts import family, reset
from tests.harness.verified_guests import standby_source
from tests.tui.test_live import SIZE, app_of, dashboard

pytestmark = pytest.mark.usefixtures("plain_environment")


def recorded(forks: int = 24) -> ForkTui:
    """A dashboard on a fan-out that a real supervisor told, until it had made so many forks."""
    recording = Recording.load(BURST)
    return ForkTui(RecordedSupervisor(until_made(recording, forks)), now=lambda: recording.clock)


def going() -> tuple[ForkTui, Burst]:
    """A dashboard on the beginning of that, and the fan-out as it is known then."""
    recording = Recording.load(BURST)
    (burst,) = Recording(0, until_made(recording, 10), {}).world.bursts.listed
    return recorded(10), burst


async def test_a_fan_out_is_shown_from_its_beginning_until_it_is_dismissed(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await standby_source(running.client, "source", "hot_mib=1", "passes=0")
        async with dashboard(running) as pilot:
            activity = pilot.app.screen.query_one("#activity")
            await pilot.press("F", *"6", "enter")
            await until_shown(pilot, "fan-out of source")
            said = await until_shown(pilot, "6 of 6 forks")
            assert re.search(r"done, asked by .* \(pid \d+\)", said)
            assert re.search(
                r"p50 [0-9.]+ m?s · p95 [0-9.]+ m?s · slowest source-\d [0-9.]+ m?s · [0-9.]+ a second", said
            )
            assert re.search(r"limited by .* took \d+% of the forks' time", said)
            assert len(re.findall(r"source-\d +\+[0-9.]+ m?s", said)) == 4
            assert not activity.display
            await pilot.press("B")
            await until(pilot, lambda: activity.display)
            assert "fan-out made 6 of 6" in await until_shown(pilot, "fan-out made")
            assert "fan-out of source" not in screen_text(pilot)
            await pilot.press("b")
            await until(pilot, lambda: isinstance(pilot.app.screen, FanOuts))
            said = await until_shown(pilot, "as they began; bars are of")
            assert all(f"source-{n} " in said for n in range(1, 7))
            await pilot.press("X")
            await until_shown(pilot, "source: it has ended")
            await pilot.press("o")
            await until_shown(pilot, "the slowest first; bars are of")
            await pilot.press("b")
            await until(pilot, lambda: pilot.app.screen is app_of(pilot).dashboard)


async def test_it_is_cancelled_by_a_key_and_what_is_made_stays(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        client = running.client
        # Forks that walk for ever would leave this process no CPU: sessions have equal shares of it, sched(7).
        await standby_source(client, "source", "hot_mib=1", "passes=2")
        async with dashboard(running) as pilot:
            asked = asyncio.create_task(client.fan_out("source", FanOutRequest(count=300, concurrency=2)))
            await until_shown(pilot, " of 300 forks")
            await pilot.press("b")
            await until(pilot, lambda: isinstance(pilot.app.screen, FanOuts))
            await until_shown(pilot, "limited by")
            await pilot.press("X")
            await until_shown(pilot, "source: fan-out cancelled, ")
            made = [child for child in (await asked).children if child.instance is not None]
            await until_shown(pilot, f"{len(made)} of 300 forks")
            assert 0 < len(made) < 300
            dashboard_of = app_of(pilot).dashboard
            await until(pilot, lambda: not dashboard_of.world.bursts.running)
            (burst,) = dashboard_of.world.bursts.listed
            assert (burst.told.operation.outcome, burst.told.operation.done) == ("cancelled", len(made))
            await until_shown(pilot, "cancelled: ")
            assert f"{len(made)} of 300 forks" in screen_text(pilot)


async def test_one_of_before_is_in_the_list_and_not_beside_the_tree(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        await standby_source(running.client, "source", "hot_mib=1", "passes=0")
        for number, count in enumerate((2, 3)):
            await running.client.fan_out("source", FanOutRequest(count=count, name_prefix=f"vm-{number}"))
        async with dashboard(running) as pilot:
            assert "fan-out of source" not in screen_text(pilot)
            await pilot.press("b")
            said = (await until_shown(pilot, "3 of its forks were made before this dashboard looked")).splitlines()
            listed = [re.sub(" +", " ", line) for line in said if "fan-out of source" in line]
            assert ["▸" in line for line in listed] == [True, False]
            assert ["3 of 3 forks" in line for line in listed] == [True, False]
            await pilot.press("right_square_bracket")
            await until_shown(pilot, "2 of its forks were made before this dashboard looked")
            await pilot.press("left_square_bracket", "left_square_bracket")
            await until_shown(pilot, "3 of its forks were made before this dashboard looked")


@pytest.mark.parametrize("size", [(40, 12), (60, 20), (80, 24), SIZE, (200, 50)])
async def test_at_any_size_it_says_how_far_it_is_and_opens_in_full(size: tuple[int, int]) -> None:
    app, burst = going()
    async with app.run_test(size=size) as pilot:
        await until_shown(pilot, f"{burst.told.operation.done} of 24 forks")
        await until(pilot, lambda: tree(pilot).rows)
        assert tree(pilot).size.height >= 2
        await pilot.press("b")
        await until_shown(pilot, "▸ ")
        await pilot.press("end")
        # The last of those that had begun by then.
        await until_shown(pilot, burst.members[burst.order[-1]].name)


async def test_without_any_the_screen_says_how_one_begins() -> None:
    async with told(reset(family())).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("B", "b", "X", "right_square_bracket", "o")
        await until_shown(pilot, "No fan-out was seen")
        await pilot.press("escape")
        await until(pilot, lambda: pilot.app.screen is app_of(pilot).dashboard)


async def test_a_click_on_the_pane_opens_it() -> None:
    async with recorded().run_test(size=SIZE) as pilot:
        await until_shown(pilot, "24 of 24 forks")
        await pilot.click("#burst", offset=(10, 3))
        await until(pilot, lambda: isinstance(pilot.app.screen, FanOuts))


async def test_on_an_ascii_terminal_it_is_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORKTUI_ASCII", "1")
    async with going()[0].run_test(size=SIZE) as pilot:
        assert (await until_shown(pilot, " of 24 forks")).isascii()
        await pilot.press("b")
        assert (await until_shown(pilot, "bars are of")).isascii()
