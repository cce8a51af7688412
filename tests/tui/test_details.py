"""What is said of one instance, without drawing it: in short, in full, and laid out in any width."""

from collections.abc import Sequence
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.model.family import family_of
from forktui.model.reducing import reduce
from forktui.model.world import World
from forktui.view.facts import in_full, overview
from forktui.view.glyphs import ASCII, UNICODE, Glyphs
from forktui.view.panels import Fact, fact_lines, flowed, in_columns, in_sections
from forktui.view.styled_lines import Line, line_width
from forktui.view.subject import Subject
from forktui.view.waterfall import waterfall
from supervisor.models import (
    DiskInfo,
    Guest,
    HostStatistics,
    Instance,
    InstanceStatistics,
    InterfaceInfo,
    KnownFault,
    LayerInfo,
    MachineInfo,
    Operation,
    PageMapFold,
    Phase,
    State,
    Statistics,
    Template,
    TemplateChanged,
)
from tests.harness.told_hosts import BEGIN, fork_of, instance, locked_source, world_of

LOADED = (Phase(name="spawn", milliseconds=5), Phase(name="load", milliseconds=2))
WIDE = 400
TEMPLATE = Template(
    id="t",
    instance_id="source",
    size_bytes=128 << 20,
    page_size=4096,
    fork_count=2,
    layers=1,
    page_server_pid=77,
    page_server_restarts=2,
    recorded_pages=4101,
    recorded_runs=12,
)
FOLD = PageMapFold(
    id="fork-1",
    page_size=4096,
    pages=40,
    cells=((0, 8, 0, 0, 0), (0, 0, 0, 8, 0)),
    latency_bounds_us=(1, 2, 4, 20_000),
    latency_counts=(0, 90, 8, 1, 1),
    fault_ms=5.0,
)
MACHINE = MachineInfo(
    id="fork-1",
    directory="/var/lib/forktui/instances/fork-1",
    configured=True,
    layers=(
        LayerInfo(file="mem.1", bytes=128 << 20, disk_bytes=4 << 20, names=1),
        LayerInfo(file="mem.0", bytes=128 << 20, disk_bytes=90 << 20, names=5),
    ),
    disks=(DiskInfo(id="rootfs", file="r", read_only=False), DiskInfo(id="tools", file="t", read_only=True)),
    interfaces=(InterfaceInfo(id="eth0", mac="06:00:AC:10:00:02", host_device="tap0"),),
    vsock_cid=3,
    vsock_socket="v.sock",
)


def texts(lines: Sequence[Line]) -> str:
    """Lines without their inks."""
    return "\n".join("".join(part for part, _ in line) for line in lines)


def subject(world: World, name: str, glyphs: Glyphs = UNICODE, fold: PageMapFold | None = None) -> Subject:
    """An instance with all that can be known of it."""
    machine = MACHINE if fold is not None else None
    return Subject(world, world.instances[name], family_of(world, name), glyphs, 0.0, fold, machine)


def told(world: World, name: str) -> str:
    """The facts about an instance, each in a line."""
    return texts([line for fact in overview(subject(world, name)) for line in fact_lines(fact, WIDE)])


def told_in_full(world: World, name: str, fold: PageMapFold | None = None, width: int = WIDE) -> str:
    """All that is known of it."""
    return texts(in_sections(in_full(subject(world, name, fold=fold), width), width))


def family(*more: Instance) -> World:
    """A locked source of which one fork is prefetched; a fork of a source that is gone."""
    return world_of(
        locked_source("source", ["fork-1", "fork-2"], hypervisor="firecracker"),
        fork_of("source", "fork-1", age=1, template_id="t"),
        fork_of("source", "fork-2", age=2, recording=True),
        fork_of("gone", "broken", age=4),
        *more,
        statistics=[
            InstanceStatistics(
                id="fork-1", faults=1, prefetched_pages=4101, private_bytes=19 << 20, guest=Guest(passes=7)
            ),
            InstanceStatistics(id="broken", faults=12_345, guest=Guest(corrupt="0x1000")),
        ],
    )


# Who locks what


def test_a_source_tells_its_lock_its_recorded_pages_and_its_family() -> None:
    said = told(reduce(family(), TemplateChanged(template=TEMPLATE)), "source")
    assert "◆ LOCKED 2" in said
    assert "locked by fork-1, fork-2" in said
    assert "to unlock t on all of them detaches, d on all of them deletes; d here deletes the whole tree" in said
    assert "cascade   takes 2 below: 2 hold the lock" in said
    assert "hot pages 4101 pages in 12 runs  16 MiB recorded" in said
    assert "family    3 instances, 2 running  19 MiB private" in said


def test_a_source_tells_who_goes_with_it_although_it_holds_no_lock() -> None:
    world = family(
        fork_of("source", "copy", age=5, fork_kind="copy", state=State.STANDBY, memory_backend="file"),
        fork_of("source", "let-go", age=6, fork_kind="copy", memory_backend=None, phases=LOADED),
        fork_of("source", "kept", age=7, fork_kind="checkpoint", state=State.STANDBY),
        fork_of("fork-1", "below", age=8),
    )
    said = told(world, "source")
    assert "cascade   takes 6 below: 2 hold the lock, 3 do not (" in said
    assert ", 1 below those" in said
    listed = told_in_full(world, "source").splitlines()
    of = {name: next(line for line in listed if f" {name} " in line) for name in ("fork-1", "copy", "let-go", "kept")}
    assert of["fork-1"].startswith("◆ fork-1") and "holds the lock: d deletes it, t detaches it; 1 fork" in of["fork-1"]
    assert of["copy"].startswith("· copy") and "holds no lock: a copy, or detached" in of["copy"]
    assert "holds no lock: detached, it has all of its memory" in of["let-go"]
    assert "holds no lock: a checkpoint has its memory for itself" in of["kept"]
    assert "lock      none of source: detached, it has all of its memory" in told(world, "let-go")


def test_what_unlocks_a_source_is_whole_at_any_width_and_comes_before_all_else() -> None:
    world = family()
    for width in range(12, 130):
        lines = in_columns(overview(subject(world, "source")), width, 14, UNICODE, "I shows all")
        assert max(map(line_width, lines)) <= width
    narrow = in_columns(overview(subject(world, "source")), 38, 9, UNICODE, "I shows all")
    said = " ".join(texts(narrow).split())
    assert "t on all of them detaches, d on all of them deletes; d here deletes the whole tree" in said
    assert texts(narrow).splitlines()[-1].startswith("… ")
    assert "I shows all" in said


def test_of_a_source_of_thousands_of_forks_only_the_numbers_are_reckoned() -> None:
    forks = [fork_of("s", f"f{n:04}", age=n, fork_kind="copy" if n % 2 else "share_memory") for n in range(3000)]
    world = world_of(locked_source("s", [one.name for one in forks[::2]]), *forks)
    assert "cascade   takes 3000 below: 1500 hold the lock, 1500 do not\n" in told(world, "s")
    listed = told_in_full(world, "s").splitlines()
    assert sum(line.startswith("◆ ") for line in listed) == 1500
    assert "and 1000 more" in listed


# What else there is to say


def test_a_fork_tells_its_source_and_its_counters() -> None:
    said = told(family(), "fork-1")
    assert "source    source  share_memory fork" in said
    assert "lock      holds that of source, as 1 other does; t detaches it, which lets go" in said
    assert "1 demand · 0 around · 0 residual" in said
    assert "7 passes verified" in said


def test_a_fork_tells_the_template_that_it_reads_and_what_its_prefetch_was_worth() -> None:
    worth = TEMPLATE.model_copy(update={"sampled_pages": 40, "precision": 0.75, "wasted_bytes": 1025 * 4096})
    said = told_in_full(reduce(family(), TemplateChanged(template=worth)), "fork-1", FOLD)
    assert "precision 75% wanted, 4 MiB wasted on each fork  of 40 pages held back" in said
    assert "reads     t · page server pid 77, replaced 2 times · 2 forks read it" in said
    assert "pages     pid 77  the page server that answers its faults" in said
    assert "mem.1     4 MiB of 128 MiB  its own" in said
    assert "mem.0     90 MiB of 128 MiB  5 names: others have it too" in said


def test_faults_are_told_by_how_long_they_waited() -> None:
    said = told_in_full(family(), "fork-1", FOLD)
    assert "latency   mean 50 us  p50 <2 us  p95 <4 us  p99 <20.0 ms" in said
    rows = [line.split() for line in said.splitlines() if line.startswith(("<", ">"))]
    assert [row[:3] for row in rows] == [
        ["<2", "us", "90"],
        ["<4", "us", "8"],
        ["<20.0", "ms", "1"],
        [">20.0", "ms", "1"],
    ]
    assert len(rows[0][3]) == WIDE - 18 > len(rows[1][3]) > len(rows[2][3]) == len(rows[3][3]) == 4


def test_a_fork_of_a_deleted_source_still_names_it() -> None:
    assert "source    (deleted) gone" in told(family(), "broken")


def test_alarms_come_first() -> None:
    counters = InstanceStatistics(id="vm", oldest_fault_ms=12_000, copy_errors=3, guest=Guest(corrupt="0xdead"))
    vm = instance("vm", state_error="no such device", exit_code=1, exit_message="code 1: gone", stopped_at=BEGIN)
    world = world_of(vm, statistics=[counters])
    at = Statistics(at=BEGIN + timedelta(seconds=65), instances=(), host=HostStatistics())
    title, corrupt, stuck, errors, error, ended, *_ = told(reduce(world, at), "vm").splitlines()
    assert title == "vm  ● Running  vm"
    assert "CORRUPT" in corrupt and "0xdead" in corrupt
    assert "STUCK" in stuck and "12.0 s" in stuck
    assert "3 pages could not be copied" in errors
    assert "no such device" in error
    assert ended == "exit      code 1: gone  1m05s ago"


def test_every_process_is_told_with_its_pid() -> None:
    world = reduce(family(), TemplateChanged(template=TEMPLATE))
    host = HostStatistics(console_holder_pid=555)
    world = reduce(world, Statistics(at=BEGIN, instances=(), host=host))
    said = told_in_full(world, "fork-1")
    for process in ("VMM       pid 1000", "pages     pid 77", "consoles  pid 555", "owned by  supervisor pid 7"):
        assert process in said
    assert "for forks pid 77" in told_in_full(world, "source")


def test_an_instance_tells_its_firecracker_and_what_that_does_wrong() -> None:
    known = [KnownFault(name=f"fault-{number}", action="warn") for number in range(5)]
    known.append(KnownFault(name="diff-of-several-slots", action="full"))
    known.append(KnownFault(name="old-tracking-field", action="field"))
    vm = instance("vm", firecracker_version="1.14.1", known_faults=known)
    said = told(world_of(vm), "vm")
    assert "version   1.14.1 · whole snapshots: diff-of-several-slots\n" in said
    assert said.endswith("issues    5 known: fault-0, fault-1, fault-2, +2")
    assert "old-tracking-field" not in said
    assert "issues    5 known: fault-0, fault-1, fault-2, fault-3, fault-4" in told_in_full(world_of(vm), "vm")
    said = told(world_of(instance("vm", firecracker_version="1.16.1")), "vm")
    assert said.endswith("version   1.16.1")
    assert "version" not in told(world_of(instance("vm")), "vm")


def test_a_busy_instance_shows_who_asked_for_what_and_its_step() -> None:
    began = datetime(2026, 1, 1, 12, 0, 0).astimezone()
    operation = Operation(verb="standby", step="snapshot", asked_by="root (pid 7)", since=began)
    said = told(world_of(instance("vm", operation=operation)), "vm")
    assert "under way standby: snapshot  since 12:00:00, asked by root (pid 7)\n" in said


def test_an_instance_without_anything_can_be_told_of() -> None:
    world = world_of(instance("vm", state=State.CREATED))
    assert "booted from image pagewalker" in told(world, "vm")
    assert "Clone hygiene" not in told_in_full(world, "vm")


# What a clone shares


def test_hygiene_tells_whether_the_guest_noticed_that_it_is_a_clone() -> None:
    def guest(restored: bool) -> str:
        counters = InstanceStatistics(id="f", guest=Guest(passes=1, restored=restored))
        return told(world_of(fork_of("s", "f"), statistics=[counters]), "f")

    assert "saw its new VM generation id" in guest(True)
    assert "the guest has not noticed its restore" in guest(False)


def test_a_clone_tells_what_it_shares_with_its_source_and_what_is_different() -> None:
    known = [
        KnownFault(name="vsock-ports-reused", action="warn"),
        KnownFault(name="monotonic-clock-jumps", action="warn"),
    ]
    fork = fork_of("s", "fork-1", firecracker_version="1.14.1", known_faults=known)
    said = told_in_full(world_of(fork), "fork-1", FOLD)
    for line in (
        "VM gen id different: new at each load; whether the guest saw it nobody knows, it prints nothing about that",
        "MAC       same: eth0 06:00:AC:10:00:02 on tap0, one at a time on a network",
        "vsock     same CID 3, different socket /var/lib/forktui/instances/fork-1/v.sock"
        "; known of 1.14.1: vsock-ports-reused",
        "disks     different: rootfs, each a copy of the source's; same: tools, read-only",
        "clock     behind: the wall clock goes on from when the snapshot was written, until the guest sets it"
        "; known of 1.14.1: monotonic-clock-jumps",
    ):
        assert line in said


@pytest.mark.parametrize(
    ("fields", "clone"),
    [
        ({"fork_kind": "share_memory"}, True),
        ({"fork_kind": None, "phases": LOADED}, True),
        ({"fork_kind": "copy", "phases": (Phase(name="boot", milliseconds=3),)}, False),
        ({"fork_kind": None, "source_id": None}, False),
    ],
)
def test_only_what_was_loaded_from_a_snapshot_is_a_clone(fields: dict[str, object], clone: bool) -> None:
    assert ("Clone hygiene" in told_in_full(world_of(fork_of("s", "f", **fields)), "f")) is clone


# How it is laid out


PIECES = st.lists(st.tuples(st.text("ab 日é", max_size=12), st.sampled_from(["plain", "muted", "key"])), max_size=6)


@given(PIECES, st.integers(2, 30))
def test_words_wrap_within_their_width_and_none_is_lost(line: Line, width: int) -> None:
    rows = flowed(line, width)
    assert all(line_width(row) <= width for row in rows)
    assert "".join(texts(rows).split()) == "".join("".join(text for text, _ in line).split())


def test_lines_break_between_words_and_a_badge_is_one() -> None:
    line: Line = [("one two", "plain"), (" · ", "guide"), (" ◆ LOCKED 3 ", "locked"), ("  three", "plain")]
    assert texts(flowed(line, 14)).splitlines() == ["one two · ", " ◆ LOCKED 3 ", "three"]


@given(st.lists(st.integers(1, 60), min_size=1, max_size=14), st.integers(20, 180), st.integers(1, 20))
def test_columns_fit_and_say_how_much_does_not(lengths: list[int], width: int, height: int) -> None:
    facts = [Fact(f"l{n}", [("word " * length, "plain")]) for n, length in enumerate(lengths)]
    lines = in_columns(facts, width, height, UNICODE, "I")
    assert len(lines) <= height
    assert all(line_width(line) <= width for line in lines)
    words = texts(lines).count("word")
    assert ("more line" in texts(lines)) == (words < sum(lengths)) or width < 24


def test_facts_use_the_whole_width_before_they_grow_long() -> None:
    facts = [Fact(f"l{n}", [("word", "plain")]) for n in range(6)]
    assert [len(in_columns(facts, width, 10, UNICODE, "")) for width in (49, 100, 150)] == [6, 3, 2]


def test_in_full_everything_is_ascii_where_the_terminal_has_no_more() -> None:
    world = family()
    for name in world.instances:
        one = subject(world, name, ASCII, FOLD if name == "fork-1" else None)
        assert texts(in_sections(in_full(one, 80), 80)).isascii()


@pytest.mark.parametrize("width", [20, 34, 56, 76, 100, 190])
def test_in_full_nothing_is_wider_than_the_screen(width: int) -> None:
    world = reduce(family(), TemplateChanged(template=TEMPLATE))
    for name in world.instances:
        lines = in_sections(in_full(subject(world, name, fold=FOLD), width), width)
        assert max(map(line_width, lines)) <= width


def test_the_waterfall_begins_each_phase_where_the_one_before_ended() -> None:
    phases = [Phase(name="spawn", milliseconds=5), Phase(name="load", milliseconds=10), Phase(name="x", milliseconds=5)]
    lines = texts(waterfall(phases, 59, UNICODE)).splitlines()
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
        assert "━" in texts([line])
