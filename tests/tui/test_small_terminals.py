"""What is on small terminals: what is asked and its answers, the tree before all else, and nothing cut unmarked."""

import pytest

from forktui.tui.app import ForkTui
from tests.harness.pilot import screen_text, until_shown, until_told
from tests.harness.recorded_supervisor import RecordedSupervisor, Recording

pytestmark = pytest.mark.usefixtures("plain_environment")

LOW, NARROW, MEDIUM = (40, 12), (60, 20), (100, 30)


@pytest.mark.parametrize(
    ("size", "keys", "words"),
    [
        (LOW, (), ("fork-3-1", "rec", "? Help", "q Quit", "● live")),
        (LOW, ("d",), ("Delete fork-3-2?", "No", "Delete (y)")),
        (LOW, ("colon", *"fork", "enter"), ("fork",)),
        (LOW, ("f",), ("Copy fork-3-2 while it runs", "name", "[Running]")),
        (LOW, ("question_mark",), ("Keys", "One fork that shares the", "Esc closes")),
        (LOW, ("i",), ("fork-3-2", "source", "I shows all")),
        (LOW, ("e",), ("events",)),
        (NARROW, ("d",), ("Delete fork-3-2?", "No", "Delete (y)")),
        (NARROW, ("i",), ("page map", "faulted", "I show")),
        (NARROW, ("question_mark",), ("Keys", "One fork that shares the", "Esc closes")),
    ],
)
async def test_what_is_asked_and_how_one_answers_is_on_the_screen(
    size: tuple[int, int], keys: tuple[str, ...], words: tuple[str, ...]
) -> None:
    recording = Recording.load()
    source = RecordedSupervisor(recording.events, recording.page_maps)
    app = ForkTui(source, on_mount_focus="fork-3-2", now=lambda: recording.clock)
    async with app.run_test(size=size) as pilot:
        await until_told(pilot, recording)
        await pilot.press(*keys)
        for one in words:
            await until_shown(pilot, one)


async def test_a_question_and_its_answers_stay_where_what_goes_is_long() -> None:
    recording = Recording.load()
    source = RecordedSupervisor(recording.events, recording.page_maps)
    app = ForkTui(source, on_mount_focus="source", now=lambda: recording.clock)
    async with app.run_test(size=LOW) as pilot:
        await until_told(pilot, recording)
        await pilot.press("d")
        await until_shown(pilot, "and 8 more")
        shown = screen_text(pilot)
        assert all(words in shown for words in ("Delete source and the 13 forks", "No", "Delete all (y)")), shown


async def test_the_tree_has_more_lines_than_anything_else_on_a_medium_terminal() -> None:
    recording = Recording.load()
    source = RecordedSupervisor(recording.events, recording.page_maps)
    app = ForkTui(source, on_mount_focus="source", now=lambda: recording.clock)
    async with app.run_test(size=MEDIUM) as pilot:
        await until_shown(pilot, "page map")
        heights = {one: app.dashboard.query_one(f"#{one}").size.height for one in ("tree", "inspector", "activity")}
        assert heights["tree"] > max(heights["inspector"], heights["activity"]), heights


@pytest.mark.parametrize("size", [LOW, NARROW, (80, 24), MEDIUM])
async def test_what_does_not_fit_beside_the_totals_is_told_by_an_ellipsis(size: tuple[int, int]) -> None:
    recording = Recording.load()
    source = RecordedSupervisor(recording.events, recording.page_maps)
    app = ForkTui(source, on_mount_focus="source", now=lambda: recording.clock)
    async with app.run_test(size=size) as pilot:
        await until_shown(pilot, "locked")
        totals = screen_text(pilot).splitlines()[1].rstrip()
        assert totals.endswith("…") or totals.split("│")[-1].strip()[-1].isalpha(), totals
