"""What the dashboard looks like, at three sizes, on a fan-out that a real supervisor with Firecracker told.

FORKTUI_UPDATE_SNAPSHOTS=1 draws the pictures anew, the README's among them.
"""

import os
import re
import time
from collections.abc import Iterator

import pytest

from forktui.tui.app import ForkTui
from tests.harness.checkout import ROOT
from tests.harness.pilot import until_shown, until_told
from tests.harness.recorded_burst import BURST, until_made
from tests.harness.recorded_supervisor import RecordedSupervisor, Recording

PICTURES = ROOT / "tests" / "pictures"
README_PICTURE = ROOT / "screenshots" / "forktui.svg"
README_SIZE = (120, 40)
UPDATE = "FORKTUI_UPDATE_SNAPSHOTS"


@pytest.fixture(scope="module")
def recording() -> Recording:
    """The recorded fan-out."""
    return Recording.load()


@pytest.fixture(autouse=True)
def universal_time(plain_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this terminal in the pictures, and the time of day in UTC."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


async def picture(recording: Recording, size: tuple[int, int], focus: str, keys: tuple[str, ...], words: str) -> str:
    """The dashboard as SVG once it has all these words, `&` between them; the ids that rich makes up are left out."""
    app = ForkTui(
        RecordedSupervisor(recording.events, recording.page_maps), on_mount_focus=focus, now=lambda: recording.clock
    )
    async with app.run_test(size=size) as pilot:
        await until_told(pilot, recording)
        await pilot.press(*keys)
        for shown in words.split(" & "):
            await until_shown(pilot, shown)
        await pilot.pause(0.1)
        svg = app.export_screenshot(title="forktui")
    return re.sub(r"terminal-\d+", "terminal", svg) + "\n"


@pytest.mark.parametrize(
    ("name", "size", "focus", "keys", "words"),
    [
        ("80x24", (80, 24), "source", (), "fork-8: stopped"),
        ("80x24-details", (80, 24), "fork-2", ("i",), "▒ prefetched"),
        ("120x40", README_SIZE, "fork-2", (), "prefetched 4"),
        ("120x40-source", README_SIZE, "source", (), "to unlock"),
        ("120x40-delete", README_SIZE, "fork-4", ("d",), "Delete fork-4?"),
        ("120x40-fan-out", README_SIZE, "source", ("F", *"20"), "20 take 360 MiB"),
        ("120x40-create", README_SIZE, "source", ("n", *"Web"), "lowercase letters"),
        ("80x24-tree", (80, 24), "source", ("d",), "10 of them running"),
        ("80x24-command", (80, 24), "source", ("colon", *"f", "tab"), "fan-out, filter, fork"),
        ("80x24-filter", (80, 24), "source", ("slash", *"fork-3 state:run", "enter", "asterisk"), "3 of 14 match"),
        ("120x40-columns", README_SIZE, "source", ("o", *"jjj", "space", *"jjj", "s"), "never"),
        (
            "120x40-sorted",
            README_SIZE,
            "fork-2",
            ("colon", *"sort private sums", "enter", "full_stop"),
            "ended hidden & 81 a cell",
        ),
        ("200x50", (200, 50), "fork-3-2", (), "around 4 & 188 MiB"),
    ],
)
async def test_the_dashboard_looks_as_it_did(
    recording: Recording, name: str, size: tuple[int, int], focus: str, keys: tuple[str, ...], words: str
) -> None:
    compare(name, await picture(recording, size, focus, keys, words))


@pytest.mark.parametrize(
    ("name", "size", "forks", "focus", "keys", "words"),
    [
        ("120x40-burst", README_SIZE, 14, "source", (), "limited by"),
        ("80x24-burst", (80, 24), 14, "source", (), "slowest web"),
        ("120x40-fan-outs", README_SIZE, 24, "source", ("b",), "as they began"),
        ("120x40-details", README_SIZE, 24, "warm-up", ("I",), "on disk, newest first"),
    ],
)
async def test_a_burst_looks_as_it_did(
    name: str, size: tuple[int, int], forks: int, focus: str, keys: tuple[str, ...], words: str
) -> None:
    burst = Recording.load(BURST)
    begun = Recording(burst.clock, until_made(burst, forks), burst.page_maps)
    compare(name, await picture(begun, size, focus, keys, words))


def compare(name: str, drawn: str) -> None:
    """Hold a picture against the one that is kept, or keep it."""
    kept = PICTURES / f"{name}.svg"
    if os.environ.get(UPDATE) == "1":
        kept.write_text(drawn)
        if name == f"{README_SIZE[0]}x{README_SIZE[1]}":
            README_PICTURE.write_text(drawn)
    assert drawn == kept.read_text(), f"{kept.name} looks different: set {UPDATE}=1 and look at what changed"


def test_the_readme_shows_one_of_the_pictures() -> None:
    assert README_PICTURE.read_text() == (PICTURES / f"{README_SIZE[0]}x{README_SIZE[1]}.svg").read_text()
