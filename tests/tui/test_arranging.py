"""The dashboard on hosts that are told: columns, order, marks and what is hidden, by key and by mouse."""

import json
from pathlib import Path

import pytest
from rich.cells import cell_len
from textual.pilot import Pilot

from forktui.actions.action import Outcome
from forktui.tui.app import ForkTui
from forktui.tui.choices import FILE_NAME, KeptChoices
from forktui.tui.messages import Finished
from forktui.tui.widgets.fork_tree import MARK_WIDTH
from supervisor.models import (
    Guest,
    HostStatistics,
    InstanceChanged,
    InstanceStatistics,
    State,
    Statistics,
)
from tests.harness.pilot import Wishes, hear, host, screen_text, shown_rows, tree, until, until_shown
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.told_hosts import BEGIN, FORKS, chain, family, fork_of, instance, locked_source, reset

pytestmark = pytest.mark.usefixtures("plain_environment")

HEADER = 2
"""The line of the screen that has the titles."""


def titles(pilot: Pilot[None]) -> list[str]:
    """What is above the columns."""
    return screen_text(pilot).splitlines()[HEADER].split()


def counted(second: float, *counters: InstanceStatistics) -> Statistics:
    """Statistics after some seconds."""
    return Statistics(at=BEGIN, clock=second, instances=counters, host=HostStatistics())


async def test_a_click_on_a_title_sorts_by_it_and_another_the_other_way_round() -> None:
    counters = [InstanceStatistics(id="fork-2", faults=9, prefetched_pages=9)]
    async with host(family(), counters).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j")
        at = screen_text(pilot).splitlines()[HEADER].index("prefetch")
        await pilot.click("#tree", offset=(at, 0))
        await until_shown(pilot, "▼prefetch")
        assert shown_rows(pilot) == ["source", "fork-2", "fork-1", "fork-3"]
        await pilot.click("#tree", offset=(at, 0))
        await until_shown(pilot, "▲prefetch")
        assert shown_rows(pilot) == ["source", "fork-1", "fork-3", "fork-2"]
        assert tree(pilot).cursor_id == "fork-1"
        await pilot.click("#tree", offset=(5, 0))
        await until_shown(pilot, "instance ▲")
        assert shown_rows(pilot) == ["source", *FORKS]


async def test_trees_are_sorted_by_their_sums_which_are_shown() -> None:
    host_told = [
        instance("small"),
        locked_source("great", ["a", "b"], age=1),
        fork_of("great", "a", age=2),
        fork_of("great", "b", age=3),
    ]
    counters = [InstanceStatistics(id=name, faults=faults) for name, faults in (("small", 3), ("a", 2), ("b", 2))]
    async with host(host_told, counters).run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("T")
        await until_shown(pilot, "has no sum")
        await pilot.press("colon", *"sort faults", "enter")
        await until(pilot, lambda: shown_rows(pilot) == ["small", "great", "a", "b"])
        await pilot.press("T")
        await until(pilot, lambda: shown_rows(pilot) == ["great", "a", "b", "small"])

        def numbers() -> list[str]:
            return next(line for line in screen_text(pilot).splitlines() if "▾ great" in line).split()[6:9]

        # What was said covers them for some seconds.
        await until(pilot, lambda: numbers() == ["2", "·", "4"])
        assert "sums" in screen_text(pilot).splitlines()[HEADER] or "summed" in screen_text(pilot)


async def test_a_click_on_the_arrow_folds_and_leaves_the_cursor_where_it_is() -> None:
    async with host([*family(), instance("other", age=9)]).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("G")
        await pilot.click("#tree", offset=(MARK_WIDTH, 1))
        assert shown_rows(pilot) == ["source", "other"]
        assert tree(pilot).cursor_id == "other"
        await pilot.click("#tree", offset=(MARK_WIDTH, 1))
        assert shown_rows(pilot) == ["source", *FORKS, "other"]
        await pilot.click("#tree", offset=(MARK_WIDTH + 2, 1))
        assert tree(pilot).cursor_id == "source"


async def test_marks_by_match_by_tree_and_by_range_are_what_an_action_acts_on() -> None:
    app = Wishes(host([*family(), instance("other", age=9)]))
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("slash", *"backend:uffd", "enter", "asterisk")
        assert tree(pilot).selection == FORKS
        await pilot.press("escape", "u", "g", "j", "space", "j", "v")
        assert tree(pilot).selection == FORKS
        await pilot.press("u", "g", "M")
        assert tree(pilot).selection == ("source", *FORKS)
        await pilot.press("u", "g", "shift+down", "shift+down")
        assert tree(pilot).selection == ("source", "fork-1")
        await pilot.press("u", "j", "space", "v", "d", "y")
        await until(pilot, lambda: app.wishes)
    assert app.wishes == [("delete", ("fork-3", "other"), 1)]


async def test_the_footer_says_what_can_be_done_to_all_that_are_marked_as_they_are_now() -> None:
    app = host(family())
    async with app.run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)

        def can_stop() -> bool:
            return next(possible for action, possible in app.dashboard._keys._offers if action.word == "stop")

        await pilot.press("slash", *"fork", "enter", "asterisk")
        await until(pilot, can_stop)
        await hear(pilot, InstanceChanged(instance=fork_of("source", "fork-3", age=3, state=State.STOPPED)))
        await until(pilot, lambda: not can_stop())
        await pilot.press("G", "space")
        await until(pilot, can_stop)


async def test_the_filter_says_what_it_is_how_much_it_finds_and_what_it_does_not_know() -> None:
    async with host([*family(), instance("other", age=9)]).run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("slash", *"fork state:run")
        await until_shown(pilot, "3 of 5 match")
        assert "(source)" in screen_text(pilot)
        await pilot.press("enter")
        await until_shown(pilot, "/fork state:run  3 of 5 match  Esc ends the filter")
        await pilot.press("slash", "end", "x")
        await until_shown(pilot, "state:runx is not known")
        await pilot.press(*["backspace"] * 20, *"quux")
        await until_shown(pilot, "Nothing matches quux")
        assert "0 of 5 match" in screen_text(pilot)
        await pilot.press(*["backspace"] * 4, *"status:x")
        await until_shown(pilot, "status: is no field; there are name:, id:, state:, vmm:")
        await pilot.press("asterisk", "escape")
        await until(pilot, lambda: len(tree(pilot).rows) == 5)
        assert not tree(pilot).marked
        assert "match" not in screen_text(pilot)


async def test_what_has_ended_is_hidden_and_that_is_said() -> None:
    stopped = fork_of("source", "fork-9", age=20, state=State.STOPPED)
    async with host([*family(), stopped]).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("full_stop")
        await until_shown(pilot, "1 ended hidden . shows them")
        assert shown_rows(pilot) == ["source", *FORKS]
        await hear(pilot, InstanceChanged(instance=fork_of("source", "fork-1", age=1, state=State.STOPPED)))
        await until_shown(pilot, "2 ended hidden")
        await pilot.press("slash", *"fork-9")
        await until_shown(pilot, "Nothing matches fork-9, and those that have ended are hidden")
        await pilot.press("escape", "full_stop")
        await until(pilot, lambda: "hidden" not in screen_text(pilot))
        assert shown_rows(pilot) == ["source", *FORKS, "fork-9"]


async def test_passes_are_there_as_soon_as_there_is_a_pagewalker() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        assert "passes" not in titles(pilot)
        await hear(pilot, counted(1.0, InstanceStatistics(id="fork-1", guest=Guest(passes=7))))
        await until(pilot, lambda: "passes" in titles(pilot))
        assert "fork-3" in screen_text(pilot)


async def test_columns_are_chosen_kept_and_there_the_next_time(tmp_path: Path) -> None:
    def app() -> ForkTui:
        return ForkTui(RecordedSupervisor([reset(family())]), choices=KeptChoices(tmp_path))

    async with app().run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        assert titles(pilot) == [
            "⋯",
            "instance",
            "state",
            "lock",
            "forks",
            "faults/s",
            "prefetch",
            "residual",
            "priv",
            "MiB",
        ]
        await pilot.press("o", "end", "space", "k", "k", "k", "s", *["home"], "j", "j", "space")
        await until_shown(pilot, "[x] vmm")
        assert "[ ] lock" in screen_text(pilot)
        await pilot.press("escape")
        await until(pilot, (tmp_path / FILE_NAME).exists)
    assert json.loads((tmp_path / FILE_NAME).read_text()) == {"columns": {"vmm": "always", "lock": "never"}}
    async with app().run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        assert "vmm" in titles(pilot) and "lock" not in titles(pilot)
        await pilot.press("o", "W", "escape")
        await until(pilot, lambda: "lock" in titles(pilot) and "vmm" not in titles(pilot))
        await until(pilot, lambda: json.loads((tmp_path / FILE_NAME).read_text()) == {})


async def test_the_picker_says_why_a_column_is_not_there_and_fits_a_small_terminal() -> None:
    async with host(family()).run_test(size=(40, 12)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.click("#tree", offset=(0, 0))
        await until_shown(pilot, "Columns")
        await pilot.press("j", "j", "j", "space")
        assert "[x] forks      always" in screen_text(pilot)
        assert "[ ] lock       no room" in screen_text(pilot)
        await pilot.press("G")
        await until_shown(pilot, "vmm")
        assert "Esc ends" in screen_text(pilot)


async def test_a_rate_is_over_once_nothing_is_told_of_it_for_some_time() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        for second, faults in ((1.0, 0), (1.5, 40)):
            await hear(pilot, counted(second, InstanceStatistics(id="fork-1", faults=faults)))
        await until(pilot, lambda: cells(pilot, "fork-1")["faults/s"] == "20")
        await hear(pilot, counted(9.0))
        await until(pilot, lambda: cells(pilot, "fork-1")["faults/s"] == "0")


def cells(pilot: Pilot[None], name: str) -> dict[str, str]:
    """What the columns show of an instance."""
    shape = tree(pilot).shape
    line = next(line for line in screen_text(pilot).splitlines() if f" {name} " in line)
    begin, found = MARK_WIDTH + shape.name_width, {}
    for column in shape.columns:
        found[column.word] = line[begin : begin + column.width + 1].strip()
        begin += column.width + 1
    return found


async def test_the_cursor_keeps_its_line_of_the_screen_when_rows_above_it_come_and_go() -> None:
    forks = [fork_of("source", f"vm-{number:03}", age=number) for number in range(1, 100)]
    async with host([locked_source("source", ["vm-001"]), *forks]).run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("pagedown", "pagedown", "k", "k")
        line = tree(pilot).cursor - tree(pilot).scroll_offset.y
        before = tree(pilot).cursor_id
        await pilot.press("O")
        assert tree(pilot).cursor_id == before
        await pilot.press("O")
        for number in range(5):
            await hear(pilot, InstanceChanged(instance=instance(f"new-{number}", age=-9)))
        await until(pilot, lambda: len(tree(pilot).rows) == 105)
        assert tree(pilot).cursor_id == before
        assert tree(pilot).cursor - tree(pilot).scroll_offset.y == line


async def test_forks_that_come_below_the_cursor_come_on_the_screen() -> None:
    alone = [instance(f"vm-{number:02}", age=number) for number in range(30)]
    async with host(alone).run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("G")
        await until(pilot, lambda: tree(pilot).cursor_id == "vm-29")
        assert " vm-29 " in screen_text(pilot)
        for number in range(12):
            await hear(pilot, InstanceChanged(instance=fork_of("vm-29", f"fork-{number:02}", age=100 + number)))
        await until(pilot, lambda: len(tree(pilot).rows) == 42)
        shown = await until_shown(pilot, "fork-03")
        assert tree(pilot).cursor_id == "vm-29"
        assert " vm-29 " in shown


async def test_the_cursor_goes_to_what_its_user_has_made_once_it_is_told_of() -> None:
    app = host([instance(f"vm-{number:02}", age=number) for number in range(30)])
    async with app.run_test(size=(100, 30)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        app.post_message(Finished(Outcome("created web", made="web")))
        await hear(pilot, InstanceChanged(instance=instance("other", age=99)))
        await until(pilot, lambda: len(tree(pilot).rows) == 31)
        assert tree(pilot).cursor_id == "vm-00"
        await hear(pilot, InstanceChanged(instance=instance("web", age=100)))
        await until(pilot, lambda: tree(pilot).cursor_id == "web")
        await pilot.press("k")
        await hear(pilot, InstanceChanged(instance=instance("web", age=100, recording=True)))
        await until_shown(pilot, "● rec")
        assert tree(pilot).cursor_id == "other"


async def test_a_chain_of_ten_thousand_is_drawn_to_its_end_within_the_width() -> None:
    async with host(chain(10_000)).run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: len(tree(pilot).rows) == 10_000)
        await pilot.press("G")
        await until_shown(pilot, "i9999")
        row = next(line for line in screen_text(pilot).splitlines() if "i9999" in line)
        assert row.strip().startswith("9999⋯")
        assert "● Running" in row
        await pilot.press("h", "g", "enter")
        assert shown_rows(pilot) == ["i0"]


async def test_wide_names_are_measured_in_cells() -> None:
    wide = [instance("漢字" * 20), instance("plain", age=1)]
    async with host(wide).run_test(size=(80, 24)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        names = [line.partition("●")[0] for line in screen_text(pilot).splitlines() if "● Running " in line][:2]
        assert names[0].rstrip().endswith("…")
        assert cell_len(names[0]) == cell_len(names[1])
