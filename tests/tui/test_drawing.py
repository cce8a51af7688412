"""What is drawn, without drawing it: numbers, columns, guides, facts, bars and cells."""

import dataclasses
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from forktui.model.forest import View, forest, rows
from forktui.model.sorting import Sort
from forktui.model.world import World
from forktui.text.quantities import age, count, mebibytes, milliseconds, names, percentage, plural, rate, size
from forktui.view.columns import COLUMNS, Column
from forktui.view.glyphs import ASCII, UNICODE, Glyphs, glyphs
from forktui.view.page_heat import heat_lines, heat_piece, legend, no_page_map
from forktui.view.sparkline import bars
from forktui.view.styled_lines import Line, line_width
from forktui.view.tree_lines import MIN_NAME_WIDTH, guides, header, layout, row_line
from supervisor.models import (
    Guest,
    InstanceStatistics,
    Operation,
    PageMapFold,
    Phase,
    State,
)
from tests.harness.told_hosts import fork_of, instance, locked_source, world_of

LOADED = (Phase(name="spawn", milliseconds=5), Phase(name="load", milliseconds=2))


def text(line: Line) -> str:
    """A line without its inks."""
    return "".join(part for part, _ in line)


def texts(lines: Sequence[Line]) -> str:
    """Lines without their inks."""
    return "\n".join(map(text, lines))


# Numbers


@pytest.mark.parametrize(
    ("number", "shown"),
    [(0, "0"), (9999, "9999"), (10_000, "10.0k"), (123_456, "123k"), (999_600, "1.0M"), (2**40, "1100G")],
)
def test_counts(number: int, shown: str) -> None:
    assert count(number) == shown


@given(st.integers(0, 10**12))
def test_counts_stay_within_their_column(number: int) -> None:
    assert len(count(number)) <= 5


@given(st.integers(0, 2**40))
def test_mebibytes_stay_within_their_column(number: int) -> None:
    assert len(mebibytes(number)) <= 7


def test_sizes_durations_ages_and_shares() -> None:
    assert [size(n) for n in (0, 512, 4096, 19 << 20, 128 << 20, 3 << 41)] == [
        "0 B", "512 B", "4 KiB", "19 MiB", "128 MiB", "6.0 TiB",
    ]  # fmt: skip
    assert [mebibytes(n) for n in (0, 4 << 20, 128 << 20)] == ["0", "4.0", "128"]
    assert [milliseconds(n) for n in (0.04, 13.16, 519.2, 1234.0)] == ["0.0 ms", "13.2 ms", "519 ms", "1.2 s"]
    assert [age(n) for n in (0.9, 61, 3700)] == ["0s", "1m01s", "1h01m"]
    assert (percentage(1, 8), percentage(1, 0)) == ("12.5%", "-")
    assert [rate(n) for n in (0.0, 0.5, 67.2, 12_345.0)] == ["0", "0.5", "67", "12.3k"]
    assert [plural(n, "fork") for n in (0, 1, 2, 12_345)] == ["0 forks", "1 fork", "2 forks", "12.3k forks"]
    assert names(["a", "b", "c"]) == "a, b, +1"
    assert names(["a"], total=4) == "a, +3"
    assert names([]) == ""


# Columns


@pytest.mark.parametrize("width", range(20, 220, 7))
def test_a_row_is_as_wide_as_its_layout_and_the_header(width: int) -> None:
    world = family()
    shape = layout(width)
    widths = {line_width(row_line(world, forest(world), n, shape, UNICODE)) for n in range(len(world.instances))}
    assert widths == {width} == {line_width(header(shape, Sort(), UNICODE))}


def test_at_80_columns_lock_forks_faults_prefetch_and_memory_are_there() -> None:
    titles = [column.title for column in layout(77).columns]
    assert titles == ["state", "lock", "forks", "faults/s", "prefetch", "residual", "priv MiB"]


@pytest.mark.parametrize("width", [40, 77, 117, 200])
@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.word)
def test_a_blank_is_before_the_arrow_of_what_is_sorted_by(column: Column, width: int) -> None:
    sort = Sort(column.measure)
    shape = layout(width, sort=sort)
    found = text(header(shape, sort, UNICODE))
    assert len(found) == width
    assert shape.name_width >= min(MIN_NAME_WIDTH, layout(width).name_width)
    if column in shape.columns and shape.name_width > MIN_NAME_WIDTH:
        assert f" {UNICODE.falling if sort.falling else UNICODE.rising}{column.title}" in found


def test_on_a_wide_terminal_every_column_is_there_and_names_have_the_rest() -> None:
    assert layout(200).columns == COLUMNS
    assert layout(200).name_width == 200 - sum(column.width + 1 for column in COLUMNS)


def family() -> World:
    """A locked source; a prefetched fork, a recording one, a cold boot and a corrupt one."""
    return world_of(
        locked_source("source", ["fork-1", "fork-2"], hypervisor="firecracker"),
        fork_of("source", "fork-1", age=1),
        fork_of("source", "fork-2", age=2, recording=True),
        instance("cold", age=3),
        fork_of("gone", "broken", age=4),
        statistics=[
            InstanceStatistics(
                id="fork-1", faults=1, prefetched_pages=4101, private_bytes=19 << 20, guest=Guest(passes=7)
            ),
            InstanceStatistics(id="broken", faults=12_345, guest=Guest(corrupt="0x1000")),
        ],
    )


def row(world: World, name: str, shown: Glyphs = UNICODE) -> str:
    """One instance's line in a wide layout, with one blank between any two words."""
    found = forest(world)
    return " ".join(text(row_line(world, found, found.rows.position[name], layout(150), shown)).split())


def test_a_row_tells_what_is_known_and_a_dot_what_does_not_apply() -> None:
    world = family()
    assert row(world, "source") == "▾ source ■ Standby ◆ locked 2 · · · · · · · · · fc"
    assert row(world, "fork-1") == "├─ fork-1 ● Running · 0 1 4101 0 7 19.0 · · uffd emb"
    assert row(world, "fork-2") == "└─ fork-2 ● Running ● rec · 0 0 0 0 · · · · uffd emb"
    assert row(world, "cold") == "cold ● Running · · · · · · · · · · emb"
    assert row(world, "broken") == "broken ● Running CORRUPT · 0 12.3k 0 0 0 · · · uffd emb"


def test_a_busy_instance_shows_its_verb() -> None:
    assert "↻ standby" in row(world_of(instance("vm", operation=Operation(verb="standby"))), "vm")


def test_a_closed_row_says_how_many_it_hides() -> None:
    world = family()
    found = forest(world, View(collapsed=frozenset({"source"})))
    assert text(row_line(world, found, 0, layout(120), UNICODE)).startswith("▸ source +2 ")


def test_guides_join_a_row_to_its_source() -> None:
    chain = [locked_source("a", ["b"]), fork_of("a", "b", age=1), fork_of("b", "c", age=2), fork_of("a", "d", age=3)]
    found = rows(world_of(*chain))
    assert [guides(found, n, 8, UNICODE) for n in range(4)] == ["", "├─ ", "│  └─ ", "└─ "]
    assert [guides(found, n, 8, ASCII) for n in range(4)] == ["", "|- ", "|  `- ", "`- "]


def test_a_deep_row_says_its_depth_and_draws_only_the_nearest_levels() -> None:
    chain = [fork_of(f"i{number - 1}", f"i{number}", age=number) for number in range(500)]
    found = rows(world_of(*chain))
    assert guides(found, 499, 4, UNICODE) == "499⋯         └─ "
    line = row_line(world_of(*chain), forest(world_of(*chain)), 499, layout(77), UNICODE)
    assert line_width(line) == 77
    assert "i499" in text(line)


# Bars and cells


@given(st.lists(st.floats(0, 1e6), max_size=60), st.integers(1, 4))
def test_bars_have_a_column_for_each_value_and_show_all_above_zero(values: list[float], height: int) -> None:
    lines = bars(values, height, UNICODE)
    assert [len(line) for line in lines] == [len(values)] * height
    for column, value in enumerate(values):
        assert (lines[-1][column] != " ") == (value > 0)
    if values and max(values) > 0:
        assert lines[0][values.index(max(values))] == "█"


CELLS = {
    (8, 0, 0, 0, 0): "absent",
    (0, 8, 0, 0, 0): "faulted",
    (0, 0, 8, 0, 0): "around",
    (0, 0, 0, 8, 0): "prefetched",
    (0, 0, 0, 0, 8): "zero",
    (7, 1, 0, 0, 0): "faulted",
    (0, 1, 0, 7, 0): "prefetched",
}


@pytest.mark.parametrize(("cell", "ink"), CELLS.items())
def test_a_cell_is_what_most_of_its_present_pages_are(cell: tuple[int, int, int, int, int], ink: str) -> None:
    assert heat_piece(cell, UNICODE)[1] == ink


@pytest.mark.parametrize("shown", [UNICODE, ASCII])
def test_kinds_and_mixtures_differ_without_colour(shown: Glyphs) -> None:
    pure = {heat_piece(cell, shown)[0] for cell in list(CELLS)[:5]}
    mixed = heat_piece((0, 4, 0, 4, 0), shown)[0]
    assert len(pure | {mixed}) == 6


def test_a_heat_map_has_its_cells_in_address_order_and_a_legend_of_what_occurs() -> None:
    fold = PageMapFold(id="f", page_size=4096, pages=40, cells=tuple(CELLS)[:5])
    assert [text(line) for line in heat_lines(fold, 2, UNICODE)] == ["·█", "▓▒", "○"]
    assert text(legend(fold, 80, UNICODE)) == "█ faulted 8  ▓ around 8  ▒ prefetched 8  ○ zero 8  · absent"
    empty = PageMapFold(id="f", page_size=4096, pages=8, cells=((8, 0, 0, 0, 0),))
    assert text(legend(empty, 80, UNICODE)) == "· absent"


# Glyphs


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"state": State.STANDBY}, "Standby: no VMM"),
        ({"memory_backend": "file", "phases": LOADED}, "file backend"),
        ({}, "booted cold"),
        ({"phases": (Phase(name="boot", milliseconds=3),)}, "booted cold"),
        ({"fork_kind": "copy", "phases": LOADED}, "detached"),
    ],
)
def test_what_has_no_page_map_says_why(fields: dict[str, object], why: str) -> None:
    assert no_page_map(instance("one", **fields)).startswith(why)


def test_every_glyph_is_one_cell_and_every_ascii_glyph_ascii() -> None:
    for shown in (UNICODE, ASCII):
        for value in dataclasses.asdict(shown).values():
            for symbol in "".join(value.values() if isinstance(value, dict) else value):
                assert cell_len(symbol) == 1
                assert shown is UNICODE or symbol.isascii()
        assert set(shown.states) == set(State)


def test_the_ascii_set_is_taken_where_it_is_asked_for() -> None:
    assert glyphs({"FORKTUI_ASCII": "1"}) is ASCII
    assert glyphs({"FORKTUI_ASCII": "0"}) is UNICODE


def test_a_locale_without_utf_8_gets_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("locale.getencoding", lambda: "ANSI_X3.4-1968")
    assert glyphs({}) is ASCII
    monkeypatch.setattr("locale.getencoding", lambda: "UTF-8")
    assert glyphs({}) is UNICODE


def test_ascii_rows_are_ascii() -> None:
    world = family()
    for name in world.instances:
        assert row(world, name, ASCII).isascii()
