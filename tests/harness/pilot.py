"""Driving the dashboard in tests: a screen to read, and conditions to wait for."""

import asyncio
from collections.abc import Callable, Iterable

from textual.pilot import Pilot

from forktui.actions.action import Outcome
from forktui.tui.app import ForkTui
from forktui.tui.messages import Finished, Heard, Wanted
from forktui.tui.widgets.fork_tree import ForkTree
from forktui.tui.widgets.heat_map import HeatMap
from forktui.view.page_heat import has_page_map
from supervisor.models import (
    Activity,
    Event,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    InstanceStatistics,
    Statistics,
)
from tests.harness.recorded_supervisor import RecordedSupervisor, Recording
from tests.harness.told_hosts import reset

PATIENCE = 30.0
LOOK_AGAIN = 0.02
"""Seconds between two looks at a condition."""


async def until(pilot: Pilot[None], condition: Callable[[], object]) -> None:
    """Let the dashboard work until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await pilot.pause(LOOK_AGAIN)


async def until_told(pilot: Pilot[None], recording: Recording) -> None:
    """Wait until the dashboard shows all that a recording tells of the host, and the selected one's page map."""
    app, told = pilot.app, recording.world
    assert isinstance(app, ForkTui)
    heat = app.dashboard.query_one(HeatMap)

    def known() -> bool:
        world, selected = app.dashboard.world, app.dashboard.selected
        alike = (
            world.instances,
            world.statistics,
            world.templates,
            world.bursts,
            world.activity_count >= told.activity_count,
        )
        answered = app.dashboard.connection.live or app.dashboard.connection.attempts > 0
        mapped = selected is None or not has_page_map(selected) or not heat.cells
        mapped = mapped or heat._fold is not None or bool(heat._refusal)
        return answered and mapped and alike == (told.instances, told.statistics, told.templates, told.bursts, True)

    await until(pilot, lambda: tree(pilot).cursor_id is not None or not told.instances)
    await until(pilot, known)
    # What depends on the time alone is drawn once a second.
    app._tick()
    await pilot.pause()


def screen_text(pilot: Pilot[None]) -> str:
    """What the terminal shows of the topmost screen, line by line."""
    return "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())


async def until_shown(pilot: Pilot[None], words: str) -> str:
    """Wait until the screen has these words, and return all of it."""
    try:
        await until(pilot, lambda: words in screen_text(pilot))
    except TimeoutError:
        raise AssertionError(f"{words!r} is not on the screen:\n{screen_text(pilot)}") from None
    return screen_text(pilot)


def told(*events: Event, now: float = 0.0, focus: str | None = None) -> ForkTui:
    """A dashboard that is told these events, at a time that stands still."""
    return ForkTui(RecordedSupervisor(events), now=lambda: now, on_mount_focus=focus)


def host(instances: Iterable[Instance], statistics: Iterable[InstanceStatistics] = ()) -> ForkTui:
    """A dashboard of a host with these instances."""
    return told(reset(instances, statistics))


def tree(pilot: Pilot[None]) -> ForkTree:
    """The fork tree, also below a dialog."""
    app = pilot.app
    assert isinstance(app, ForkTui)
    return app.dashboard.fork_tree


def shown_rows(pilot: Pilot[None]) -> list[str]:
    """The ids in the tree, top to bottom."""
    return [row.id for row in tree(pilot).rows]


async def hear(pilot: Pilot[None], *events: InstanceChanged | InstanceDeleted | Statistics | Activity) -> None:
    """Tell the dashboard more, as its feed does."""
    for event in events:
        pilot.app.post_message(Heard([event]))
    await pilot.pause()


class Wishes(ForkTui):
    """A dashboard that notes what it would ask of the supervisor."""

    def __init__(self, source: ForkTui) -> None:
        super().__init__(source.client)
        self.wishes: list[tuple[str, tuple[str, ...], int]] = []

        self.values: list[dict[str, str]] = []

    def on_wanted(self, message: Wanted) -> None:
        self.wishes.append((message.verb.word, message.instance_ids, int(message.values.get("count", "1"))))
        self.values.append(message.values)
        self.post_message(Finished(Outcome(""), message.dialog))
