"""What is sent to a terminal bit by bit adds up to the screen."""

import pyte
import pytest
from rich.console import RenderableType
from textual._compositor import CompositorUpdate
from textual.screen import Screen
from textual.timer import Timer
from textual.widgets import Static

from forktui.tui.app import ForkTui
from forktui.tui.sparing import SparingUpdate
from forktui.tui.widgets.details import Facts
from supervisor.models import Guest, HostStatistics, InstanceChanged, InstanceDeleted, InstanceStatistics, Statistics
from tests.harness.pilot import hear, screen_text, tree, until
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.told_hosts import BEGIN, fan, fork_of, reset

pytestmark = pytest.mark.usefixtures("plain_environment")


class Shown(ForkTui):
    """A dashboard whose bytes are drawn on a terminal."""

    terminal: pyte.Screen
    stream: pyte.ByteStream
    sparing = 0
    sent = 0

    def _display(self, screen: Screen[object], renderable: RenderableType | None) -> None:
        if isinstance(renderable, CompositorUpdate):
            drawn = renderable.render_segments(self.console).encode()
            self.sparing += isinstance(renderable, SparingUpdate)
            self.sent += len(drawn)
            self.stream.feed(drawn)
        super()._display(screen, renderable)


async def test_what_goes_between_two_layouts_is_drawn_anew() -> None:
    app = Shown(RecordedSupervisor([reset(fan(3))]), now=lambda: 3.0)
    app.terminal = pyte.Screen(120, 40)
    app.stream = pyte.ByteStream(app.terminal)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(tree(pilot).rows) == 3)
        over = Static("said for a moment")
        over.styles.dock = "top"
        await app.dashboard.mount(over)
        await until(pilot, lambda: "said for a moment" in "".join(app.terminal.display))
        compositor = app.dashboard._compositor
        over.styles.visibility = "hidden"
        # As Textual does where a widget is to be drawn that nobody sees, and somebody asks where another one is.
        compositor._full_map_invalidated = True
        assert over not in compositor.full_map or not over.visible
        await until(pilot, lambda: "said for a moment" not in "".join(app.terminal.display))


async def test_what_is_drawn_bit_by_bit_is_the_screen_also_of_wide_characters() -> None:
    crowd = fan(60)
    app = Shown(RecordedSupervisor([reset(crowd)]), now=lambda: 3.0)
    app.terminal = pyte.Screen(120, 40)
    app.stream = pyte.ByteStream(app.terminal)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(tree(pilot).rows) == 60)
        guest = InstanceStatistics(id="i3", faults=5, private_bytes=7 << 20, guest=Guest(corrupt="0x1"))
        for event in (
            InstanceChanged(instance=crowd[2].model_copy(update={"name": "虚拟机-x", "recording": True})),
            Statistics(at=BEGIN, clock=2.0, instances=(guest,), host=HostStatistics()),
            InstanceDeleted(id="i1"),
            InstanceChanged(instance=crowd[2].model_copy(update={"name": "x虚拟机"})),
            InstanceChanged(instance=fork_of("i2", "fork-of-wide", age=2)),
        ):
            await hear(pilot, event)
            await until(pilot, lambda: app.dashboard.world is app.world)
            await pilot.pause(0.1)
            await pilot.press("j")
            await pilot.pause(0.1)
            assert [line.rstrip() for line in app.terminal.display] == [
                line.rstrip() for line in screen_text(pilot).splitlines()
            ]
    assert app.sparing > 5


async def test_one_row_that_changes_costs_hundreds_of_bytes_at_most() -> None:
    crowd = fan(60)
    app = Shown(RecordedSupervisor([reset(crowd)]), now=lambda: 3.0)
    app.terminal = pyte.Screen(120, 40)
    app.stream = pyte.ByteStream(app.terminal)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(tree(pilot).rows) == 60)
        await pilot.pause(0.3)
        before = app.sent
        await hear(pilot, InstanceChanged(instance=crowd[5].model_copy(update={"recording": True})))
        await until(pilot, lambda: "● rec" in screen_text(pilot))
        await pilot.pause(0.1)
        assert 0 < app.sent - before < 500


@pytest.mark.parametrize("size", [(120, 40), (200, 50)])
async def test_what_one_key_changes_is_due_in_one_frame(size: tuple[int, int]) -> None:
    app = ForkTui(RecordedSupervisor([reset(fan(60))]), now=lambda: 3.0)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: len(tree(pilot).rows) == 60)
        await pilot.press("j", "j")
        await until(pilot, lambda: not app.dashboard._dirty_widgets and not app.dashboard._layout_required)
        # What is not due once the key has been dealt with is told by a message, and drawn a frame later.
        tree(pilot).action_move(1)
        facts, bar = app.dashboard.query_one(Facts), tree(pilot).vertical_scrollbar
        assert {tree(pilot), facts} <= app.dashboard._dirty_widgets
        tree(pilot).action_edge(-1)
        assert {tree(pilot), facts, bar} <= app.dashboard._dirty_widgets


async def test_what_is_held_up_while_it_puts_off_a_draw_draws_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    run = Timer._run

    async def held_up(timer: Timer) -> None:
        # Textual leaves out what is due before it has begun to wait for it.
        if timer._repeat is None:
            await run(timer)

    monkeypatch.setattr(Timer, "_run", held_up)
    app = ForkTui(RecordedSupervisor([reset(fan(3))]), now=lambda: 3.0)
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: len(tree(pilot).rows) == 3)
        await hear(pilot, InstanceDeleted(id="i1"))
        await until(pilot, lambda: len(tree(pilot).rows) == 2)
