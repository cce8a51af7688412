"""What the dashboard looks like in each of its states, at three sizes.

FORKTUI_UPDATE_SNAPSHOTS=1 draws the pictures anew, those that the README shows among them.
"""

import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from typing import Any, Final

import pytest

from forktui.client import feed
from forktui.tui.app import ForkTui
from forktui.tui.widgets.overview import Overview
from supervisor.models import Event
from tests.harness.checkout import ROOT
from tests.harness.pictured_hosts import Leaving, empty, read_only, thousand, troubled
from tests.harness.pilot import until, until_shown, until_told
from tests.harness.printing_supervisor import PrintingSupervisor
from tests.harness.recorded_burst import BURST, until_made
from tests.harness.recorded_supervisor import RecordedSupervisor, Recording
from tests.harness.told_hosts import BEGIN

PICTURES: Final = ROOT / "tests" / "pictures" / "states"
SHOWN: Final = ROOT / "screenshots"
UPDATE: Final = "FORKTUI_UPDATE_SNAPSHOTS"
SIZES: Final = ((80, 24), (120, 40), (200, 50))
SHOWN_STATES: Final = {"120x40-burst": "burst", "120x40-alarms": "alarms", "120x40-plan": "deletion-plan"}
"""Pictures that are in screenshots/ as well, and what they are called there."""


class Still(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Still":
        return cls.fromtimestamp((BEGIN + timedelta(seconds=40)).timestamp(), tz)


@pytest.fixture(autouse=True)
def universal_time(plain_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this terminal in the pictures, and a time of day that is always the same."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        patch.setattr(feed, "datetime", Still)
        time.tzset()
        yield
    time.tzset()


def burst() -> Recording:
    """A fan-out in the middle."""
    recorded = Recording.load(BURST)
    return Recording(recorded.clock, until_made(recorded, 14), recorded.page_maps)


def told(events: Sequence[Event]) -> Recording:
    """What is told of a host, looked at twenty seconds after its beginning; one of its forks has a page map."""
    recorded = next(iter(Recording.load().page_maps.values()))
    return Recording(20.0, tuple(events), {"web-500": recorded.model_copy(update={"id": "web-500"})})


LINES: Final = (
    *(
        "[    0.000000] Linux version 6.1.155 (root@build) #1 SMP",
        "[    0.004120] Command line: console=ttyS0 reboot=k",
    ),
    *("Welcome to \x1b[1;32mAlpine\x1b[0m Linux 3.22", "web login: \x1b]0;not a title\x07名前 ok", "restored"),
    *(f"pass {number}" for number in range(1, 9)),
    "done",
)


@dataclass(frozen=True)
class Shown:
    """A state: what is told, which keys are pressed, and the words by which it is known to be drawn."""

    host: Callable[[], Recording]
    focus: str | None
    keys: tuple[str, ...]
    words: tuple[str, ...]
    wide_words: tuple[str, ...] = ()
    """Words that are there where there are more than 80 columns."""
    narrow_keys: tuple[str, ...] | None = None
    """In place of `keys` where there are 80 columns."""
    environment: dict[str, str] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)


PRIVATE: Final = {"private": True, "title": "private supervisor"}
STATES: Final[dict[str, Shown]] = {
    "empty": Shown(lambda: told(empty()), None, (), ("There is no instance yet.",), options=PRIVATE),
    "create": Shown(lambda: told(empty()), None, ("n", *"Web"), ("lowercase letters",), options=PRIVATE),
    "demo": Shown(Recording.load, "fork-2", (), ("▒ prefetched",), narrow_keys=("i",), options={"title": "demo"}),
    "thousand": Shown(lambda: told(thousand()), "web-500", (), ("1001", "web-500"), ("absent",)),
    "locked": Shown(Recording.load, "source", (), ("to unlock",), narrow_keys=("i",)),
    "burst": Shown(burst, "source", (), ("slowest web",)),
    "plan": Shown(Recording.load, "source", ("d",), ("10 of them running",)),
    "console": Shown(Recording.load, "fork-2", ("c",), ("follows", "done")),
    "disconnected": Shown(lambda: told(troubled()), None, (), ("Next try in 1s",)),
    "read-only": Shown(lambda: told(read_only(troubled())), None, ("f",), ("READ-ONLY",)),
    "alarms": Shown(lambda: told(troubled()), None, (), ("more, a lists them",)),
    "ansi": Shown(Recording.load, "fork-2", (), ("fork-3-1",), ("absent",), environment={"TEXTUAL_THEME": "ansi-dark"}),
    "ascii": Shown(Recording.load, "fork-2", (), ("fork-3-1",), ("absent",), environment={"FORKTUI_ASCII": "1"}),
}


async def picture(state: Shown, name: str, size: tuple[int, int]) -> str:
    """The state as SVG; the ids that rich makes up are left out."""
    host = state.host()
    source: RecordedSupervisor = {"disconnected": Leaving}.get(name, RecordedSupervisor)(host.events, host.page_maps)
    if name == "console":
        source = PrintingSupervisor(host.events, LINES)
    # The age of what is shown stands still; page maps are read by a clock that does not.
    clock = (lambda: 100.0) if name == "disconnected" else time.monotonic
    app = ForkTui(source, on_mount_focus=state.focus, now=lambda: host.clock, clock=clock, **state.options)
    async with app.run_test(size=size) as pilot:
        await until_told(pilot, host)
        narrow = size[0] == 80
        await pilot.press(*(state.narrow_keys if narrow and state.narrow_keys is not None else state.keys))
        for words in (*state.words, *(() if narrow else state.wide_words)):
            await until_shown(pilot, words)
        await until(pilot, lambda: size[0] < 200 or app.dashboard.query_one(Overview).world is app.world)
        await pilot.pause(0.3)
        svg = app.export_screenshot(title="forktui")
    return re.sub(r"terminal-\d+", "terminal", svg) + "\n"


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("name", STATES)
async def test_a_state_looks_as_it_did(name: str, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    state = STATES[name]
    for variable, value in state.environment.items():
        monkeypatch.setenv(variable, value)
    drawn = await picture(state, name, size)
    file = f"{size[0]}x{size[1]}-{name}"
    kept = PICTURES / f"{file}.svg"
    if os.environ.get(UPDATE) == "1":
        kept.parent.mkdir(exist_ok=True)
        kept.write_text(drawn)
        if file in SHOWN_STATES:
            (SHOWN / f"{SHOWN_STATES[file]}.svg").write_text(drawn)
    assert drawn == kept.read_text(), f"{kept.name} looks different: set {UPDATE}=1 and look at what changed"


@pytest.mark.parametrize(("file", "shown"), SHOWN_STATES.items())
def test_screenshots_are_pictures_of_now(file: str, shown: str) -> None:
    assert (SHOWN / f"{shown}.svg").read_text() == (PICTURES / f"{file}.svg").read_text()
