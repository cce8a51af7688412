"""Panes of lines: which row is on the screen while lines come and go, wrapping by width, search; and logs followed."""

import asyncio
from collections.abc import AsyncGenerator, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.app import ComposeResult
from textual.pilot import Pilot

from forktui.client.api import ApiError, SupervisorUnreachableError
from forktui.client.followed_log import FollowedLog, LogLink, LogState, Overlap
from forktui.tui.screens.console import console_line
from forktui.tui.theme import DARK, THEMES, ink_defaults
from forktui.tui.widgets.inked import InkedApp
from forktui.tui.widgets.lines_view import LinesView
from forktui.view.kept_lines import KeptLines, Place
from forktui.view.rows import height, marked, pattern, shifted, text_of, wrapped
from forktui.view.styled_lines import Line, line_width

LIMIT = 100


class Pane(InkedApp):
    """A pane of lines alone."""

    CSS = "LinesView { overflow-x: hidden; scrollbar-gutter: stable; }"

    def __init__(self, view: LinesView) -> None:
        super().__init__()
        self.view = view
        for theme in THEMES:
            self.register_theme(theme)
        self.theme = DARK.name

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return ink_defaults(self.current_theme)

    def compose(self) -> ComposeResult:
        yield self.view


def numbered(begin: int, end: int) -> list[Line]:
    """Lines that say their number."""
    return [[(f"line {number}", "plain")] for number in range(begin, end)]


def shown(pilot: Pilot[None]) -> list[str]:
    """What is on the screen, row by row."""
    view = pilot.app.query_one(LinesView)
    return [view.render_line(y).text.rstrip() for y in range(view.size.height)]


async def test_a_pane_follows_until_it_is_scrolled_up_and_again_from_the_end_on() -> None:
    view = LinesView(numbered(0, 50), limit=LIMIT)
    async with Pane(view).run_test(size=(40, 10)) as pilot:
        assert shown(pilot)[-1] == "line 49"
        view.add(numbered(50, 60))
        assert shown(pilot)[-1] == "line 59"
        await pilot.press("pageup")
        before = shown(pilot)
        view.add(numbered(60, 70))
        assert shown(pilot) == before
        assert (view.following, view.newer) == (False, 19)
        assert text_of(view.told()) == "held, 19 newer (End follows)"
        await pilot.press("end")
        assert (shown(pilot)[-1], view.following) == ("line 69", True)
        await pilot.press("k", "j")
        assert view.following, "who is at the end again follows"


@pytest.mark.parametrize("wraps", [True, False])
async def test_the_page_stays_where_it_is_while_lines_come_and_go(wraps: bool) -> None:
    view = LinesView(limit=LIMIT, wraps=wraps)
    async with Pane(view).run_test(size=(40, 10)) as pilot:
        view.add(numbered(0, LIMIT))
        await pilot.press("pageup")
        before = shown(pilot)
        for begin in range(LIMIT, LIMIT + 70, 7):
            view.add([*numbered(begin, begin + 6), [("wide " * 40, "plain")]])
            await pilot.pause()
            assert shown(pilot) == before
        await pilot.press("k")
        assert shown(pilot)[1:] == before[:-1]
        await pilot.press("j")
        assert shown(pilot) == before


async def test_what_is_read_is_gone_at_last_and_the_pane_says_how_much_is() -> None:
    view = LinesView(numbered(0, LIMIT), limit=LIMIT)
    async with Pane(view).run_test(size=(40, 10)) as pilot:
        await pilot.press("home")
        assert shown(pilot)[0] == "line 0"
        view.add(numbered(LIMIT, 3 * LIMIT))
        await pilot.pause()
        assert shown(pilot)[:2] == ["-- 200 older lines not kept --", "line 200"]
        assert not view.following


async def test_a_wide_line_does_not_end_following() -> None:
    for wraps in (True, False):
        view = LinesView(numbered(0, 50), limit=LIMIT, wraps=wraps)
        async with Pane(view).run_test(size=(40, 10)) as pilot:
            view.add([[("x" * 300, "plain")]])
            view.add(numbered(51, 53))
            await pilot.pause()
            assert shown(pilot)[-1] == "line 52"
            assert view.following


async def test_following_survives_another_size_and_so_does_the_place() -> None:
    view = LinesView([[(f"{number} " * 30, "plain")] for number in range(60)], limit=LIMIT)
    async with Pane(view).run_test(size=(40, 10)) as pilot:
        await pilot.resize_terminal(90, 20)
        await pilot.pause()
        assert view.following
        await pilot.press("pageup")
        top = shown(pilot)[0].split()[0]
        await pilot.resize_terminal(60, 12)
        await pilot.pause()
        assert (shown(pilot)[0].split()[0], view.following) == (top, False)


async def test_w_wraps_and_what_is_not_wrapped_is_marked_where_it_is_cut() -> None:
    view = LinesView([[("界" * 30, "plain")]], follows=False)
    async with Pane(view).run_test(size=(40, 10)) as pilot:
        assert [row for row in shown(pilot) if row] == ["界" * 19, "界" * 11]
        await pilot.press("w")
        assert [row for row in shown(pilot) if row] == ["界" * 18 + "…"] or shown(pilot)[0].endswith("…")
        await pilot.press("right")
        assert shown(pilot)[0].startswith("…界")
        await pilot.press("w")
        assert shown(pilot)[0] == "界" * 19


async def test_a_search_that_is_typed_at_once_marks_counts_and_moves() -> None:
    lines = [[(f"{number} {'error' if number % 20 == 0 else 'fine'}", "plain")] for number in range(90)]
    view = LinesView(lines, limit=LIMIT)  # type: ignore[arg-type]
    async with Pane(view).run_test(size=(40, 10)) as pilot:
        await pilot.press(*"/error", "enter")
        assert text_of(view.told()) == "follows  /error  5 of 5 lines (n N)"
        [row] = [view.render_line(y) for y in range(10) if "error" in view.render_line(y).text]
        assert [segment.text for segment in row if segment.style and segment.style.bold] == ["error"]
        await pilot.press("N")
        assert "4 of 5 lines" in text_of(view.told())
        assert "60 error" in shown(pilot)
        await pilot.press("n", "n")
        assert "1 of 5 lines" in text_of(view.told())
        view.add([[("error", "plain")]])
        assert "1 of 6 lines" in text_of(view.told())
        await pilot.press(*"/none", "enter")
        assert "nothing matches" in text_of(view.told())
        await pilot.press("slash", "escape")
        assert "/" not in text_of(view.told())


async def test_what_is_typed_into_a_search_is_no_key_of_the_pane() -> None:
    view = LinesView(numbered(0, 50), limit=LIMIT)
    async with Pane(view).run_test(size=(40, 10)) as pilot:
        await pilot.press(*"/qwGgn [red]", "backspace")
        assert "/qwGgn [red_" in text_of(view.told())
        assert view.wraps


@given(
    st.lists(st.tuples(st.text(alphabet="ab 界é\u0301", max_size=30), st.sampled_from(["plain", "muted"])), max_size=5),
    st.integers(2, 20),
)
def test_a_line_wrapped_is_whole_and_no_row_is_too_wide(line: Line, width: int) -> None:
    rows = wrapped(line, width)
    assert "".join(map(text_of, rows)) == text_of(line)
    assert all(line_width(row) <= width for row in rows)
    assert height(line, width) == len(rows)


@given(st.text(alphabet="ab 界", max_size=30), st.integers(1, 40))
def test_a_line_moved_sideways_loses_cells_and_says_so(text: str, cells: int) -> None:
    moved = text_of(shifted([(text, "plain")], cells, "…"))
    assert moved[0] == "…"
    assert text.endswith(moved[1:])
    assert max(cell_len(text) - cells - 1, 0) - 1 <= cell_len(moved[1:]) <= max(cell_len(text) - cells - 1, 0)


@given(st.lists(st.sampled_from(["ab", "b", "a界", ""]), max_size=4), st.sampled_from(["ab", "B", "ba", "界"]))
def test_marks_change_no_text_and_are_what_was_searched_for(pieces: list[str], query: str) -> None:
    line: Line = [(piece, "plain") for piece in pieces]
    found = marked(line, pattern(query), "found")
    assert text_of(found) == text_of(line)
    assert "".join(text for text, ink in found if ink == "found") == "".join(pattern(query).findall(text_of(line)))


@given(st.lists(st.integers(0, 30), max_size=20), st.integers(1, 25), st.integers(1, 12))
def test_rows_and_places_are_each_others(sizes: list[int], limit: int, width: int) -> None:
    kept = KeptLines(limit)
    kept.wrap(width)
    for size in sizes:
        kept.add([[("x" * size, "plain")]])
    assert [kept.row_of(kept.place_of(row)) for row in range(kept.rows)] == list(range(kept.rows))
    assert kept.end == len(sizes)
    assert kept.row_of(Place(-5)) == 0


@pytest.mark.parametrize(
    ("printed", "drawn"),
    [
        ("a\tb", "a       b"),
        ("10%\r20%", "10% 20%"),
        ("\x1b[2Jx\x9b31m", "�[2Jx�31m"),
        ("a\u202eb\u200bc\ufe0f", "abc"),
        ("x" * (1 << 20), "x" * 1999 + "…"),
        ("\t" * (1 << 20), " " * 1999 + "…"),
    ],
)
def test_what_a_guest_prints_is_a_line_that_can_only_be_drawn(printed: str, drawn: str) -> None:
    assert text_of(console_line(printed)) == drawn


# Logs that go on


@given(st.lists(st.sampled_from("ab"), max_size=12), st.lists(st.sampled_from("ab"), max_size=6), st.integers(1, 8))
def test_of_a_tail_that_is_read_again_only_what_is_new_is_told(seen: list[str], new: list[str], tail: int) -> None:
    if not new:
        return
    overlap = Overlap(seen[-tail:])
    told: list[str] = []
    for line in (seen + new)[-tail:]:
        told += (line,) if overlap.known else overlap.take(line)
    if overlap.known:
        # Which of equal lines are the new ones cannot be told: what is shown ends as the log does.
        assert (seen + told)[-len(new[-tail:]) :] == new[-tail:] or len(told) < len(new)


@pytest.mark.parametrize(
    ("tail", "new", "missing"),
    [("abcdef", "ef", False), ("cdxy", "xy", False), ("xyz", "xyz", True), ("abcd", "", False), ("dd", "d", False)],
)
def test_where_a_tail_goes_on(tail: str, new: str, missing: bool) -> None:
    overlap = Overlap(list("abcd"))
    told = ""
    for line in tail:
        told += line if overlap.known else "".join(overlap.take(line))
    assert (told, overlap.missing) == (new, missing)


async def test_a_log_is_followed_through_restarts_until_its_instance_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("forktui.client.feed.FIRST_RETRY_SECONDS", 0.001)
    answers: list[tuple[str, Exception | None]] = [
        ("abc", SupervisorUnreachableError("gone")),
        ("", SupervisorUnreachableError("not there")),
        ("bcde", None),
        ("xy", ApiError(500, "internal_error", "disk")),
        ("", ApiError(404, "not_found", "vm is deleted")),
    ]

    async def follow(alive: Callable[[], object]) -> AsyncGenerator[str, None]:
        lines, end = answers.pop(0)
        if lines:
            alive()
        for line in lines:
            alive()
            yield line
        if end is not None:
            raise end

    states: list[LogState] = []
    log = FollowedLog(follow, 3, states.append)
    async with asyncio.timeout(10):
        assert "".join([line async for line in log.lines()]) == "abcdexy"
    assert [state.link for state in states] == [
        LogLink.LIVE,
        LogLink.LOST,
        LogLink.LOST,
        LogLink.LIVE,
        LogLink.LOST,
        LogLink.LIVE,
        LogLink.LIVE,
        LogLink.LOST,
        LogLink.ENDED,
    ]
    assert states[6].reason == "lines between are missing"
    assert states[-1].reason == "vm is deleted"
