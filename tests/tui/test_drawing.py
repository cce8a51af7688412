"""What is drawn, without drawing it: numbers, columns, guides, facts, bars and cells."""

import dataclasses
from collections.abc import Sequence
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from forktui.model.forest import View, forest, rows
from forktui.model.sorting import Sort
from forktui.model.world import World, reduce
from forktui.text.quantities import age, count, mebibytes, milliseconds, names, percentage, plural, rate, size
from forktui.tui.widgets.heat_map import no_page_map
from forktui.view.columns import COLUMNS
from forktui.view.facts import facts, waterfall
from forktui.view.glyphs import ASCII, UNICODE, Glyphs, glyphs
from forktui.view.page_heat import heat_lines, heat_piece, legend
from forktui.view.sparkline import bars
from forktui.view.styled_lines import Line, line_width
from forktui.view.tree_lines import guides, header, layout, row_line
from supervisor.models import (
    Guest,
    Instance,
    InstanceStatistics,
    KnownFault,
    Operation,
    PageMapFold,
    Phase,
    State,
    Template,
    TemplateChanged,
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


def test_a_busy_instance_shows_who_asked_for_what_and_its_step() -> None:
    began = datetime(2026, 1, 1, 12, 0, 0).astimezone()
    operation = Operation(verb="standby", step="snapshot", asked_by="root (pid 7)", since=began)
    vm = instance("vm", operation=operation)
    (line,) = [text(line) for line in facts(world_of(vm), vm, UNICODE) if "under way" in text(line)]
    assert line == "under way standby: snapshot  since 12:00:00, asked by root (pid 7)"


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


# Details


def told(world: World, name: str) -> str:
    """The facts about an instance."""
    return texts(facts(world, world.instances[name], UNICODE))


def test_a_source_tells_its_lock_its_recorded_pages_and_its_family() -> None:
    template = Template(
        id="t",
        instance_id="source",
        size_bytes=128 << 20,
        page_size=4096,
        fork_count=2,
        layers=1,
        recorded_pages=4101,
        recorded_runs=12,
    )
    sampled = template.model_copy(update={"sampled_pages": 40, "precision": 0.75, "wasted_bytes": 1025 * 4096})
    assert "12 runs  16 MiB, 75% wanted, 4 MiB wasted" in told(
        reduce(family(), TemplateChanged(template=sampled)), "source"
    )
    said = told(reduce(family(), TemplateChanged(template=template)), "source")
    assert "◆ LOCKED 2" in said
    assert "locked by fork-1, fork-2" in said
    assert "hot pages 4101 pages in 12 runs  16 MiB" in said
    assert "family    3 instances, 2 running  19 MiB private" in said


def test_a_fork_tells_its_source_and_its_counters() -> None:
    said = told(family(), "fork-1")
    assert "source    source  share_memory fork" in said
    assert "1 demand · 0 around · 0 residual" in said
    assert "7 passes verified" in said


def test_a_fork_of_a_deleted_source_still_names_it() -> None:
    assert "source    (deleted) gone" in told(family(), "broken")


def test_alarms_come_first() -> None:
    counters = InstanceStatistics(id="vm", oldest_fault_ms=12_000, copy_errors=3, guest=Guest(corrupt="0xdead"))
    world = world_of(
        instance("vm", state_error="no such device", exit_code=1, exit_message="code 1: gone"),
        statistics=[counters],
    )
    title, corrupt, stuck, errors, error, ended, *_ = told(world, "vm").splitlines()
    assert title == "vm  ● Running  vm"
    assert "CORRUPT" in corrupt and "0xdead" in corrupt
    assert "STUCK" in stuck and "12.0 s" in stuck
    assert "3 pages could not be copied" in errors
    assert "no such device" in error
    assert ended.split() == ["exit", "code", "1:", "gone"]


def test_an_instance_tells_its_firecracker_and_what_that_does_wrong() -> None:
    known = [KnownFault(name=f"fault-{number}", action="warn") for number in range(5)]
    known.append(KnownFault(name="diff-of-several-slots", action="full"))
    known.append(KnownFault(name="old-tracking-field", action="field"))
    said = told(world_of(instance("vm", firecracker_version="1.14.1", known_faults=known)), "vm")
    assert "version   1.14.1 · whole snapshots: diff-of-several-slots\n" in said
    assert "issues    5 known: fault-0, fault-1, fault-2, +2\n" in said
    assert "old-tracking-field" not in said
    said = told(world_of(instance("vm", firecracker_version="1.16.1")), "vm")
    assert "version   1.16.1\n" in said
    assert "issues" not in said
    assert "version" not in told(world_of(instance("vm")), "vm")


def test_hygiene_tells_whether_the_guest_noticed_that_it_is_a_clone() -> None:
    def guest(restored: bool) -> str:
        counters = InstanceStatistics(id="f", guest=Guest(passes=1, restored=restored))
        return told(world_of(fork_of("s", "f"), statistics=[counters]), "f")

    assert "saw its new VM generation id" in guest(True)
    assert "the guest has not noticed its restore" in guest(False)


def test_the_waterfall_begins_each_phase_where_the_one_before_ended() -> None:
    phases = [Phase(name="spawn", milliseconds=5), Phase(name="load", milliseconds=10), Phase(name="x", milliseconds=5)]
    lines = [text(line) for line in waterfall(phases, 59, UNICODE)]
    assert [line.find("━") for line in lines] == [10, 20, 40]
    assert [line.count("━") for line in lines] == [10, 20, 10]
    assert all(line.endswith("ms") and len(line) == 59 for line in lines)


def test_a_waterfall_of_nothing_is_nothing() -> None:
    assert waterfall([], 59, UNICODE) == []
    assert waterfall([Phase(name="boot", milliseconds=0)], 59, UNICODE) == []


@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=8), st.integers(24, 120))
def test_a_waterfall_fits_and_shows_every_phase(durations: list[float], width: int) -> None:
    phases = [Phase(name="phase", milliseconds=duration) for duration in durations]
    for line in waterfall(phases, width, UNICODE):
        assert line_width(line) == width
        assert "━" in text(line)


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


def test_an_instance_without_anything_can_be_told_of() -> None:
    bare: Instance = instance("vm", state=State.CREATED)
    assert "booted from image pagewalker" in told(world_of(bare), "vm")
