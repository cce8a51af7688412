"""Fan-outs as they were seen, without drawing them: what belongs to one, how long what took, and what limited it."""

from collections.abc import Sequence
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forktui.model.bursts import KEPT, LOST, Burst
from forktui.model.reducing import reduce, reduce_all
from forktui.model.world import World
from forktui.view.burst_bars import axis, bar_lines, shown
from forktui.view.burst_panes import LISTED, Chosen, in_full, in_short
from forktui.view.bursts import failures, figures, heading, limits, progress_bar
from forktui.view.glyphs import ASCII, UNICODE, Glyphs
from forktui.view.styled_lines import Line, line_width
from supervisor.models import (
    ErrorBody,
    Event,
    FanOutChanged,
    FanOutFailure,
    FanOutProgress,
    HostStatistics,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    Operation,
    Phase,
    Statistics,
)
from tests.harness.recorded_burst import BURST, until_made
from tests.harness.recorded_supervisor import Recording
from tests.harness.told_hosts import BEGIN, fork_of, instance, locked_source, reset

PHASES = (
    Phase(name="spawn", milliseconds=30),
    Phase(name="load", milliseconds=20),
    Phase(name="resume", milliseconds=10),
)


def text(lines: Sequence[Line]) -> str:
    """Lines without their inks."""
    return "\n".join("".join(part for part, _ in line) for line in lines)


def after(events: Sequence[Event], world: World | None = None) -> World:
    """The world after all of them."""
    world = world or World()
    for event in events:
        world = reduce(world, event)
    return world


def told(number: str = "op-1", /, **fields: object) -> FanOutChanged:
    """A fan-out of the source; fields of its operation, or of the rest of it."""
    mine = {key: fields.pop(key) for key in tuple(fields) if key in FanOutProgress.model_fields}
    values: dict[str, object] = {
        "instance_id": "source",
        "name": "source",
        "verb": "fan-out",
        "total": 4,
        "since": BEGIN,
    }
    operation = Operation.model_validate({"id": number, "asked_by": "root (pid 7)", **values, **fields})
    return FanOutChanged(fan_out=FanOutProgress.model_validate({"concurrency": 2, **mine, "operation": operation}))


def at(milliseconds: float, **host: float) -> Statistics:
    """A sample so long after the fan-out's beginning."""
    return Statistics(at=BEGIN + timedelta(milliseconds=milliseconds), instances=(), host=HostStatistics(**host))


def making(name: str, begun: float = 0, recorded: float = 5, of: str = "op-1") -> InstanceChanged:
    """A fork that is being made for a fan-out; times in milliseconds after that began."""
    since = BEGIN + timedelta(milliseconds=begun)
    operation = Operation(verb="fork", part_of=of, since=since, step="begin")
    made = {"operation": operation, "created_at": BEGIN + timedelta(milliseconds=begun + recorded), "vmm_pid": None}
    return InstanceChanged(instance=fork_of("source", name, **made))


def made(name: str, begun: float = 0, took: float = 75, phases: tuple[Phase, ...] = PHASES) -> InstanceChanged:
    """The same fork once it runs."""
    since, created = BEGIN + timedelta(milliseconds=begun), BEGIN + timedelta(milliseconds=begun + 5)
    started = since + timedelta(milliseconds=took)
    return InstanceChanged(instance=fork_of("source", name, created_at=created, started_at=started, phases=phases))


def burst_of(world: World, number: str = "op-1") -> Burst:
    """The fan-out of this id."""
    return world.bursts.all[number]


def four(**last: object) -> World:
    """A fan-out of four forks, the last of which took longest, that has ended."""
    events: list[Event] = [reset([locked_source("source", [])]), told()]
    for number, took in enumerate((75, 100, 125, 400)):
        events += [making(f"web-{number}", number * 50), made(f"web-{number}", number * 50, took)]
    ending = {"done": 4, "outcome": "done", "milliseconds": 600.0, **last}
    return after([*events, told(**ending)])


def unready(event: InstanceChanged, **fields: object) -> InstanceChanged:
    """The same fork, whose guest is to be ready by a line."""
    changed = {"readiness": "console:login:", "ready_at": None, "ready_ms": None, **fields}
    return InstanceChanged(instance=event.instance.model_copy(update=changed))


# What belongs to a fan-out


def test_it_is_as_far_as_its_source_says_where_that_is_further() -> None:
    progress = {"id": "op-1", "verb": "fan-out", "instance_id": "source", "name": "source", "total": 4, "since": BEGIN}
    tells = [Operation.model_validate({**progress, "done": done}) for done in (3, 2)]
    source = locked_source("source", [])
    events: list[Event] = [InstanceChanged(instance=source.model_copy(update={"operation": one})) for one in tells]
    begun = after([reset([source]), told(done=1)])
    assert burst_of(begun).told.operation.done == 1
    assert burst_of(reduce_all(begun, events)).told.operation.done == 3
    ended = after([reset([source]), told(done=4, outcome="done")])
    assert burst_of(reduce_all(ended, events)).told.operation.outcome == "done"


def test_a_fork_belongs_to_the_fan_out_that_its_operation_is_a_part_of() -> None:
    world = after(
        [reset([locked_source("source", [])]), told(), making("web-1"), making("other", of="op-9"), told(done=0)]
    )
    burst = burst_of(world)
    assert (burst.order, set(burst.making), world.bursts.running) == (("web-1",), {"web-1"}, 1)
    world = after([made("web-1"), made("stranger")], world)
    burst = burst_of(world)
    assert (set(burst.making), burst.durations, set(world.bursts.making)) == (set(), (75.0,), set())


def test_a_fork_that_is_fanned_out_itself_is_made() -> None:
    begun = after([reset([locked_source("source", [])]), told(), making("web-1")])
    fanned = told("op-2", instance_id="web-1", name="web-1").fan_out
    its_own = made("web-1").instance.model_copy(update={"operation": fanned.operation.model_copy(update={"done": 2})})
    world = after([FanOutChanged(fan_out=fanned), InstanceChanged(instance=its_own)], begun)
    assert burst_of(world).durations == (75.0,)
    assert (dict(burst_of(world).making), dict(world.bursts.making)) == ({}, {})
    assert burst_of(world, "op-2").told.operation.done == 2


def test_its_time_is_told_by_steps_that_follow_one_another() -> None:
    burst = burst_of(four())
    steps = {step.name: step.milliseconds for step in burst.members["web-0"].steps(BEGIN)}
    assert steps == {"wait": 5, "spawn": 30, "load": 20, "resume": 10, "rest": 10}
    assert (burst.percentile(0.5), burst.percentile(0.95), burst.slowest) == (125, 400, "web-3")
    assert burst.spent["spawn"] == 120


def test_what_a_fork_took_stays_although_it_is_started_anew_or_goes() -> None:
    world = four()
    again = made("web-1", took=9000, phases=(Phase(name="boot", milliseconds=8000),))
    world = after([again, InstanceDeleted(id="web-2")], world)
    assert burst_of(world) == burst_of(four())


def test_a_fork_that_goes_while_it_is_made_has_failed() -> None:
    world = after([reset([]), told(), making("web-1"), InstanceDeleted(id="web-1")])
    burst = burst_of(world)
    assert (burst.members["web-1"].failed, burst.durations, set(burst.making)) == (True, (), set())
    assert text(bar_lines(burst, list(burst.members.values()), BEGIN, 60, UNICODE)).endswith("failed")


def test_a_fork_that_does_not_run_took_as_long_as_its_steps() -> None:
    resting = made("web-1").instance.model_copy(update={"started_at": None, "state": "Standby", "phases": PHASES[:1]})
    world = after([reset([]), told(), making("web-1"), InstanceChanged(instance=resting)])
    assert burst_of(world).durations == (35.0,)


def test_the_last_fan_outs_are_kept_and_all_that_go_on() -> None:
    world = after([reset([]), told("long"), *(told(f"op-{n}", outcome="done") for n in range(30))])
    assert world.bursts.order == ("long", *(f"op-{n}" for n in range(21, 30)))
    assert (len(world.bursts.order), world.bursts.running) == (KEPT, 1)


def test_a_reset_keeps_what_was_seen_and_learns_what_was_not() -> None:
    other = told("op-2", outcome="done", done=3).fan_out
    world = four()
    again = reset([]).snapshot.model_copy(update={"fan_outs": (other,)})
    world = reduce(world, reset([]).model_copy(update={"snapshot": again}))
    assert [(one.id, one.seen) for one in world.bursts.listed] == [("op-1", True), ("op-2", False)]
    assert burst_of(world).durations == burst_of(four()).durations


def test_one_that_is_not_told_of_after_a_reset_has_ended_with_its_supervisor() -> None:
    world = after([reset([]), told(done=1), making("web-1"), reset([])])
    operation = burst_of(world).told.operation
    assert (operation.outcome, operation.cancelled, world.bursts.running) == ("failed", LOST, 0)
    assert burst_of(world).members["web-1"].failed
    assert f"failed: {LOST}" in text([heading(burst_of(world), None, UNICODE)])


EVENTS = st.lists(
    st.one_of(
        st.builds(
            making, st.sampled_from("abcd"), st.integers(0, 50), st.integers(-9, 9), st.sampled_from(["op-1", "op-2"])
        ),
        st.builds(made, st.sampled_from("abcd"), st.integers(0, 50), st.integers(-9, 90)),
        st.builds(lambda name: InstanceDeleted(id=name), st.sampled_from("abcd")),
        st.builds(
            lambda op, outcome: told(op, outcome=outcome),
            st.sampled_from(["op-1", "op-2"]),
            st.sampled_from([None, "done"]),
        ),
        st.builds(lambda: reset([])),
        st.builds(lambda ms, cpu: at(ms, cpu_percent=cpu), st.integers(0, 500), st.integers(0, 100)),
    ),
    max_size=40,
)


@given(EVENTS, st.integers(20, 140), st.integers(1, 12))
def test_any_order_of_events_adds_up_and_can_be_drawn(events: list[Event], width: int, height: int) -> None:
    world = after(events)
    now = world.statistics_at
    assert world.bursts.running == sum(one.running for one in world.bursts.listed)
    for burst in world.bursts.listed:
        ended = [one for one in burst.members.values() if one.ended is not None]
        assert set(burst.order) == set(burst.members)
        assert all(world.bursts.making[one] in world.bursts.all for one in burst.making if one in world.bursts.making)
        assert list(burst.durations) == sorted(burst.durations)
        assert len(burst.durations) >= len(ended)
        lines = in_short(burst, 0, now, width, height, UNICODE)
        assert len(lines) <= height
        lines += in_full(Chosen([burst], 0), now, width, UNICODE)
        assert text(lines)


# What is said of it


def test_it_tells_how_many_are_made_of_how_many_who_asked_and_how_it_ended() -> None:
    world = after([reset([]), told(done=1, failed=2), at(250)])
    line = text([heading(burst_of(world), world.statistics_at, UNICODE)])
    assert line == "fan-out of source  ↻ 1 of 4 forks  2 failed  250 ms  2 at once, asked by root (pid 7)"
    cancelled = four(outcome="cancelled", cancelled="root asked for that")
    assert text([heading(burst_of(cancelled), None, UNICODE)]).endswith("600 ms  cancelled: root asked for that")
    assert text([heading(burst_of(four()), None, UNICODE)]).endswith(
        "4 of 4 forks  600 ms  done, asked by root (pid 7)"
    )


def test_it_tells_percentiles_the_slowest_and_the_rate() -> None:
    assert text(figures(burst_of(four()), None)).split("\n") == [
        "p50 125 ms",
        "p95 400 ms",
        "slowest web-3 400 ms",
        "6.7 a second",
    ]
    nothing = burst_of(after([reset([]), told()]))
    assert text(figures(nothing, None)) == "no fork is made yet"


def test_it_tells_how_long_forks_took_until_they_were_ready_beside_how_long_until_they_ran() -> None:
    whole = sum(phase.milliseconds for phase in PHASES)
    runs = [unready(made(f"web-{number}")) for number in range(3)]
    events: list[Event] = [reset([locked_source("source", [])]), told(total=3)]
    for number in range(3):
        events += [making(f"web-{number}"), runs[number]]
    world = after(events)
    assert "ready" not in text(figures(burst_of(world), None))
    done = [unready(runs[n], ready_at=BEGIN, ready_ms=whole + late) for n, late in ((0, 900.0), (1, 100.0))]
    world = after([done[0], done[1], done[1], InstanceDeleted(id="web-2")], world)
    burst = burst_of(world)
    assert (burst.ready, set(world.bursts.waiting)) == ((175.0, 975.0), set())
    assert text(figures(burst, None)).split("\n")[:4] == [
        "p50 75.0 ms",
        "p95 75.0 ms",
        "ready p50 975 ms",
        "p95 975 ms",
    ]


def test_a_reset_tells_which_forks_have_become_ready_meanwhile() -> None:
    runs = [unready(made(f"web-{number}")) for number in range(3)]
    world = after([reset([locked_source("source", [])]), told(), making("web-0"), runs[0], making("web-1"), runs[1]])
    ready = unready(runs[0], ready_at=BEGIN, ready_ms=60.0).instance
    world = after([reset([locked_source("source", []), ready])], world)
    assert (burst_of(world).ready, set(world.bursts.waiting)) == ((75.0,), set())


@pytest.mark.parametrize(
    ("fields", "cpu", "by"),
    [
        ({}, 97.0, "the host's processors, 97% used"),
        ({"milliseconds": 400.0}, 40.0, "2 at once, which were under way all the time"),
        ({"milliseconds": 4000.0}, 40.0, "the disk, or the supervisor: records are written"),
    ],
)
def test_it_tells_what_limited_it(fields: dict[str, object], cpu: float, by: str) -> None:
    events: list[Event] = [reset([]), told(), at(10, cpu_percent=cpu), at(20, cpu_percent=1)]
    for number, took in enumerate((75, 100, 125, 400)):
        events += [making(f"web-{number}", number * 50), made(f"web-{number}", number * 50, took)]
    ended = told(done=4, outcome="done", fits=431, limiting="memory", **{"milliseconds": 600.0, **fields})
    first, *rest = text(limits(burst_of(after([*events, ended])), None)).split("\n")
    assert first == f"limited by {by}"
    assert "room for 431 (memory)" in rest
    assert any(one.startswith("rest took 6") for one in rest)


def test_why_forks_failed_is_told_once_for_each_cause() -> None:
    found = [
        FanOutFailure(name=f"web-{n}", error=ErrorBody(code="internal", message=f"web-{n}: no room")) for n in range(3)
    ]
    world = after([reset([]), told(failed=9, failures=tuple(found))])
    assert text(failures(burst_of(world))) == "web-0, web-1, web-2: no room\nand 6 forks more failed"


@pytest.mark.parametrize(("done", "failed", "bar"), [(0, 0, "...."), (4, 0, "===="), (1, 1, "=%.."), (2, 2, "==%%")])
def test_the_progress_is_a_bar_of_what_is_made_and_what_failed(done: int, failed: int, bar: str) -> None:
    burst = burst_of(after([reset([]), told(done=done, failed=failed)]))
    assert text([progress_bar(burst, 4, ASCII)]) == bar


# The bars


def test_a_bar_begins_when_its_fork_began_and_has_its_steps_in_their_order() -> None:
    burst = burst_of(four(milliseconds=550.0))
    lines = text(bar_lines(burst, [burst.members[one] for one in burst.order], None, 82, ASCII)).split("\n")
    assert lines[0] == "web-0  +0.0 ms .---==>:" + " " * 48 + "   75.0 ms"
    assert lines[3].startswith("web-3  +150 ms" + " " * 16 + ".---==>:::::")
    assert lines[3].endswith("    400 ms")


def test_bars_of_a_long_fan_out_begin_at_the_left_so_that_their_steps_can_be_seen() -> None:
    burst = burst_of(four(milliseconds=60_000.0))
    assert (axis(burst, None).own, axis(burst, None).milliseconds) == (True, 400)
    lines = text(bar_lines(burst, [burst.members["web-3"]], None, 82, ASCII))
    assert lines.startswith("web-3  +150 ms .----===>::::")


def test_the_last_to_begin_are_shown_while_it_goes_on_and_the_slowest_after_that() -> None:
    going = after([reset([]), told(), *(making(f"web-{n}") for n in range(9))])
    assert [one.name for one in shown(burst_of(going), 2)] == ["web-7", "web-8"]
    assert [one.name for one in shown(burst_of(four()), 2)] == ["web-2", "web-3"]


def recorded(forks: int | None = None) -> World:
    """A fan-out that a real supervisor told, or its beginning."""
    recording = Recording.load(BURST)
    return after(until_made(recording, forks) if forks is not None else recording.events)


@pytest.mark.parametrize("width", [30, 58, 78, 118, 198])
@pytest.mark.parametrize("forks", [0, 10, None])
@pytest.mark.parametrize("glyphs", [UNICODE, ASCII])
def test_nothing_is_wider_than_its_pane(width: int, forks: int | None, glyphs: Glyphs) -> None:
    world = recorded(forks)
    (burst,) = world.bursts.listed
    for height in (2, 4, 6, 9):
        short = in_short(burst, 3, world.statistics_at, width, height, glyphs)
        assert len(short) <= height
        assert max(map(line_width, short)) <= width or width < 40
    full = in_full(Chosen([burst], 0, True), world.statistics_at, width, glyphs)
    assert max(map(line_width, full)) <= width
    assert glyphs is UNICODE or text(full).isascii()


def test_a_real_fan_out_is_told_to_its_end() -> None:
    (burst,) = recorded().bursts.listed
    assert (len(burst.durations), len(burst.members), burst.running) == (24, 24, False)
    assert {"wait", "prepare", "spawn", "load", "prefetch", "resume", "rest"} == set(burst.spent)
    assert all(
        abs(sum(p.milliseconds for p in one.steps(BEGIN)) - one.milliseconds(BEGIN)) < 0.01
        for one in burst.members.values()
    )


def test_of_a_large_fan_out_all_is_counted_and_the_first_are_listed() -> None:
    events: list[Event] = [reset([]), told(total=LISTED + 5)]
    forks: list[Instance] = []
    for number in range(LISTED + 5):
        events += [making(f"web-{number}", number), made(f"web-{number}", number)]
        forks.append(instance(f"web-{number}"))
    world = after([*events, told(total=LISTED + 5, done=LISTED + 9, outcome="done", milliseconds=9000.0)])
    full = text(in_full(Chosen(world.bursts.listed, 0), None, 100, UNICODE)).split("\n")
    assert sum(line.startswith("web-") for line in full) == LISTED
    assert full[-2:] == ["and 5 more", "4 of its forks were made before this dashboard looked"]
