"""Alarms on the screen: rows, strip, status line and list; and toasts that cover nothing new and go in time."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from datetime import timedelta

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.pilot import Pilot
from textual.widgets._toast import Toast, ToastRack

from forktui.model.alarms import Alarm
from forktui.model.conditions import Kind
from forktui.model.reducing import reduce
from forktui.model.world import World
from forktui.tui.app import ForkTui
from forktui.tui.messages import Said
from forktui.tui.screens.alarms import AlarmsScreen
from forktui.tui.toasts import MOST
from forktui.view.alarms import BADGES, in_full, mark, strip, when
from forktui.view.columns import BY_WORD
from forktui.view.glyphs import ASCII, UNICODE
from forktui.view.rows import text_of
from forktui.view.styled_lines import line_width
from supervisor.models import (
    Activity,
    FanOutRequest,
    Guest,
    HostStatistics,
    Instance,
    InstanceChanged,
    InstanceStatistics,
    State,
    Statistics,
    TemplateChanged,
)
from tests.harness.pictured_hosts import Leaving
from tests.harness.pilot import hear, host, screen_text, told, tree, until, until_shown
from tests.harness.recorded_supervisor import Recording
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.told_hosts import (
    BEGIN,
    family,
    fork_of,
    instance,
    locked_source,
    pager,
    reset,
    said,
    sampled,
    world_of,
)
from tests.harness.verified_guests import standby_source

pytestmark = pytest.mark.usefixtures("plain_environment")

LONG = "layer /var/lib/forktui/instances/web/mem.0 was written since it was noted: put it back as it was, or accept it"


def died(name: str, **fields: object) -> Instance:
    return fork_of("source", name, state=State.STOPPED, died=True, exit_message="killed by SIGKILL", **fields)


def alarm(message: str, instance_id: str | None = None, second: int = 1, **more: object) -> Activity:
    at = BEGIN + timedelta(seconds=second)
    return Activity.model_validate({"at": at, "level": "alarm", "message": message, "instance_id": instance_id, **more})


def row(pilot: Pilot[None], name: str) -> str:
    lines = screen_text(pilot).splitlines()
    return next((line for line in lines if f" {name} " in line and ("●" in line or "✗" in line or "■" in line)), "")


# Words


def test_every_kind_has_a_badge_that_fits_its_column() -> None:
    assert set(BADGES) == set(Kind)
    assert len(set(BADGES.values())) == len(Kind)
    assert max(map(len, BADGES.values())) <= BY_WORD["lock"].width


def test_a_row_shows_the_worst_that_holds_before_what_is_over() -> None:
    world = world_of(*family(), statistics=[InstanceStatistics(id="fork-1", oldest_fault_ms=2000, stalled="stuck")])
    world = reduce(world, alarm("fork-1: layer", "fork-1", code="layer_changed"))
    assert mark(world, world.instances["fork-1"]) == (" STUCK ", "alarm")
    world = reduce(world, sampled(1, InstanceStatistics(id="fork-1")))
    assert mark(world, world.instances["fork-1"]) == ("(LAYER)", "warning")
    assert mark(world, world.instances["fork-2"]) is None


def test_what_is_over_hides_no_lock_and_what_holds_does() -> None:
    badge = BY_WORD["lock"].cell
    world = reduce(world_of(*family()), alarm("source: layer", "source", code="layer_changed"))
    assert badge(world, world.instances["source"], UNICODE) == (f"{UNICODE.lock} locked", "standby")
    world = reduce(world, alarm("fork-1: layer", "fork-1", code="layer_changed"))
    assert badge(world, world.instances["fork-1"], UNICODE) == ("layer", "warning")
    corrupt = InstanceStatistics(id="source", guest=Guest(corrupt="0x1000"))
    world = reduce(world, sampled(1, corrupt))
    assert badge(world, world.instances["source"], UNICODE) == ("CORRUPT", "alarm")


async def test_without_the_supervisor_nothing_is_said_to_be_all_right() -> None:
    recording = Recording(0.0, (reset(family()),), {})
    app = ForkTui(Leaving(recording.events), now=lambda: 0.0)
    async with app.run_test(size=(120, 40)) as pilot:
        await until_shown(pilot, "Not connected: data is")
        await pilot.press("a")
        shown = await until_shown(pilot, "nobody knows since")
        assert "Nothing is wrong" not in shown
        assert "as it was known last: not connected" in shown


def test_forks_that_wait_for_a_page_server_are_marked_and_others_are_not() -> None:
    forks = [fork_of("source", "i1", template_id="t"), fork_of("source", "i2", template_id="t", state=State.STANDBY)]
    world = reduce(world_of(locked_source("source", ["i1", "i2"]), *forks), TemplateChanged(template=pager(None)))
    marks = {name: mark(world, one) for name, one in world.instances.items()}
    assert marks == {"source": (" NO PAGER ", "alarm"), "i1": (" NO PAGER ", "alarm"), "i2": None}
    world = reduce(world, TemplateChanged(template=pager(9)))
    marks = {name: mark(world, one) for name, one in world.instances.items()}
    assert marks == {"source": ("(NO PAGER)", "warning"), "i1": None, "i2": None}
    assert world.alarms.listed(1)[0].what.startswith("its page server was dead")


@pytest.mark.parametrize(
    ("alarm", "says"),
    [
        (Alarm(Kind.STUCK, "a", "a", "x", BEGIN), "since {0}"),
        (Alarm(Kind.STUCK, "a", "a", "x", BEGIN, earlier=True), "since before {0}"),
        (Alarm(Kind.STUCK, "a", "a", "x", BEGIN, acknowledged=True), "since {0}, acknowledged"),
        (Alarm(Kind.STUCK, "a", "a", "x", BEGIN, holds=False, until=BEGIN + timedelta(seconds=9)), "{0} to {1}, over"),
        (Alarm(Kind.TOLD, "a", "a", "x", BEGIN, holds=False, until=BEGIN, times=3), "{0}, 3 times"),
        (Alarm(Kind.TOLD, "a", "a", "x", None, earlier=True), "since before this dashboard began"),
    ],
)
def test_when_it_was_is_said_by_the_time_of_day(alarm: Alarm, says: str) -> None:
    times = [f"{at.astimezone():%H:%M:%S}" for at in (BEGIN, BEGIN + timedelta(seconds=9))]
    assert when(alarm, BEGIN) == says.format(*times)
    if alarm.since is not None:
        assert f"{BEGIN.astimezone():%b %d %H:%M}" in when(alarm, BEGIN + timedelta(days=3))


foreign = st.text(alphabet="ab 漢字/…-:", max_size=200)


@given(st.lists(st.tuples(st.sampled_from(list(Kind)), foreign), max_size=20), st.integers(30, 200), st.integers(1, 3))
def test_no_line_is_wider_than_there_is_room(alarms: list[tuple[Kind, str]], width: int, height: int) -> None:
    world = World()
    for number, (kind, words) in enumerate(alarms):
        codes = {Kind.REFUSED: "insufficient_resources", Kind.LAYER: "layer_changed"}
        world = reduce(world, alarm(words, f"i{number}", code=codes.get(kind)))
    lines = strip(world, width, height, UNICODE, "a")
    assert len(lines) == min(height, len(world.alarms.groups(1)))
    for line in [*lines, *(row for one in world.alarms.listed(99) for row in in_full(one, width, None))]:
        assert line_width(line) <= width
    assert not lines or text_of(lines[-1]).rstrip().endswith("a lists them" if width >= 58 else "a")


def test_what_would_allow_it_is_in_the_dashboards_words() -> None:
    cause = {"code": "insufficient_resources", "message": "vm: fan-out of 9 refused", "remedy": "force"}
    refused = alarm("give force=true", "vm", code="insufficient_resources", details=(cause,))
    (found,) = reduce(world_of(instance("vm")), refused).alarms.listed(9)
    assert found.what == "fan-out of 9 refused, or press F and say that it is to be forced"


def test_nothing_of_an_alarm_is_left_out_of_the_list() -> None:
    told = reduce(World(), alarm(LONG, "web"))
    (one,) = told.alarms.listed(1)
    whole = "".join("".join(text_of(line).split()) for line in in_full(one, 40, None))
    assert "".join(LONG.split()) in whole


# Rows, strip and status line


async def test_a_died_vm_does_not_look_like_a_stopped_one() -> None:
    stopped = fork_of("source", "fork-2", state=State.STOPPED, exit_message="stopped on request", exit_code=0)
    async with host([*family()[:1], died("fork-1"), stopped]).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        assert "✗ died" in row(pilot, "fork-1")
        assert "✗" not in row(pilot, "fork-2")
        shown = await until_shown(pilot, "fork-1: its VMM died: killed by SIGKILL")
        assert shown.count("DIED") == 1
        assert "Stopped" in shown


@pytest.mark.parametrize("characters", ["0", "1"])
async def test_a_stuck_guest_is_on_its_row_and_in_the_status_line_and_goes(
    characters: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORKTUI_ASCII", characters)
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await hear(pilot, sampled(1, InstanceStatistics(id="fork-2", oldest_fault_ms=1500, stalled="stuck")))
        await until(pilot, lambda: sum("STUCK" in line for line in screen_text(pilot).splitlines()) == 3)
        assert " 1 STUCK " in screen_text(pilot)
        assert characters == "0" or screen_text(pilot).isascii()
        await hear(pilot, sampled(2, InstanceStatistics(id="fork-2")))
        await until(pilot, lambda: " 1 STUCK " not in screen_text(pilot))
        await until_shown(pilot, "(STUCK)")


@pytest.mark.parametrize(("size", "lines"), [((120, 40), 3), ((80, 24), 1), ((60, 20), 1)])
async def test_the_strip_has_a_line_for_each_kind_as_there_is_room_and_says_what_is_left_out(
    size: tuple[int, int], lines: int
) -> None:
    counters = [
        InstanceStatistics(id="fork-1", guest=Guest(corrupt="0x1f000")),
        InstanceStatistics(id="fork-2", oldest_fault_ms=5000, stalled="stuck"),
    ]
    happened = [alarm(f"source: {LONG}", "source", code="layer_changed"), alarm("the console holder died")]
    app = told(reset([*family(), died("fork-4")], counters), *happened)
    async with app.run_test(size=size) as pilot:
        await until_shown(pilot, f"+{5 - lines} more, a lists them")
        assert pilot.app.screen.query_one("#alarms").size.height == lines
        await pilot.resize_terminal(120, 40)
        await until(pilot, lambda: pilot.app.screen.query_one("#alarms").size.height == 3)


async def test_the_strip_takes_no_room_while_nothing_is_wrong() -> None:
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        top = tree(pilot).region.y
        await hear(pilot, alarm("fork-1: odd", "fork-1"))
        await until_shown(pilot, "a lists them")
        assert tree(pilot).region.y == top + 1
        await pilot.press("a", "A", "escape")
        await until(pilot, lambda: tree(pilot).region.y == top)


# The list


@contextlib.asynccontextmanager
async def listed() -> AsyncIterator[Pilot[None]]:
    """The list of two alarms."""
    events = [alarm(f"fork-1: {LONG}", "fork-1"), alarm("fork-3: odd", "fork-3", second=2)]
    async with told(reset(family()), *events).run_test(size=(80, 24)) as pilot:
        await until_shown(pilot, "a lists them")
        await pilot.press("a")
        await until(pilot, lambda: isinstance(pilot.app.screen, AlarmsScreen))
        yield pilot


async def test_the_list_has_all_of_it_and_acknowledges_one_by_one_or_all() -> None:
    async with listed() as pilot:
        shown = await until_shown(pilot, "2 to look at")
        assert "or accept it" in " ".join(shown.replace("│", " ").split())
        await pilot.press("space")
        shown = await until_shown(pilot, "1 to look at")
        assert "fork-3  " not in shown
        await pilot.press("A")
        await until_shown(pilot, "Nothing is wrong, and whatever was has been acknowledged.")
        await pilot.press("escape")
        await until(pilot, lambda: "a lists them" not in screen_text(pilot))


async def test_enter_goes_to_whom_it_concerns() -> None:
    async with listed() as pilot:
        await pilot.press("j", "enter")
        await until(pilot, lambda: tree(pilot).cursor_id == "fork-1")
        assert not isinstance(pilot.app.screen, AlarmsScreen)


async def test_the_list_follows_what_happens_and_the_cursor_stays_on_its_alarm() -> None:
    async with listed() as pilot:
        await pilot.press("j")
        await hear(pilot, sampled(3, InstanceStatistics(id="fork-2", oldest_fault_ms=2000, stalled="stuck")))
        await until_shown(pilot, "3 to look at")
        screen = pilot.app.screen
        assert isinstance(screen, AlarmsScreen)
        assert screen.view.chosen is not None
        assert screen.view.chosen.name == "fork-1"
        await pilot.press("home", "space")
        await until_shown(pilot, "2 to look at, 1 acknowledged")
        assert "STUCK" in screen_text(pilot)
        await hear(pilot, sampled(4, InstanceStatistics(id="fork-2")))
        await until(pilot, lambda: "STUCK" not in screen_text(pilot))


async def test_hostile_alarms_are_only_drawn() -> None:
    hostile = "\x1b]0;owned\x07[red]\x9b31m[@click=app.quit]x"
    async with told(reset([instance("vm")]), alarm(hostile, "vm")).run_test(size=(80, 24)) as pilot:
        await until_shown(pilot, "[red]")
        await pilot.press("a")
        shown = await until_shown(pilot, "1 to look at")
        assert not any(ord(character) < 32 for character in shown.replace("\n", ""))


# Toasts


async def test_a_toast_covers_neither_the_newest_event_nor_the_keys() -> None:
    events = [said(n, f"thing {n}") for n in range(50)]
    for size in ((120, 40), (80, 24), (60, 20)):
        async with told(reset(family()), *events).run_test(size=size, notifications=True) as pilot:
            await until_shown(pilot, "thing 49")
            for number in range(MOST + 2):
                pilot.app.post_message(Said(f"{number} " + "words " * 30, "error"))
            await until(pilot, lambda: len(pilot.app.screen.query(Toast)) == MOST)
            await pilot.pause()
            rack = pilot.app.screen.query_one(ToastRack)
            assert rack.region.bottom <= pilot.app.screen.query_one("#activity").region.y
            shown = screen_text(pilot)
            assert "thing 49" in shown
            assert "? Help" in shown


async def test_a_refusal_goes_when_its_cause_has_gone() -> None:
    async with host(family()).run_test(size=(120, 40), notifications=True) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await pilot.press("j", "r")
        await until_shown(pilot, "Restore refused: fork-1 is Running already")
        await hear(pilot, InstanceChanged(instance=fork_of("source", "fork-1", state=State.STANDBY, age=1)))
        await until(pilot, lambda: "Restore refused" not in screen_text(pilot))
        assert len(pilot.app._notifications) == 0


# With a real supervisor


async def test_what_dies_under_the_dashboard_is_said_in_names_that_are_on_the_screen(home: Home) -> None:
    async with supervisor(home) as running:
        source = await standby_source(running.client)
        await running.client.fan_out(source.id, FanOutRequest(count=2, name_prefix="vm", target_state="Running"))
        app = ForkTui(home.socket)
        async with app.run_test(size=(120, 40)) as pilot:
            await until(pilot, lambda: len(tree(pilot).rows) == 3)
            victim = next(one for one in app.world.instances.values() if one.name == "vm-2")
            assert victim.vmm_pid is not None
            psutil.Process(victim.vmm_pid).send_signal(signal.SIGKILL)
            await until(pilot, lambda: "✗ died" in row(pilot, "vm-2"))
            await until_shown(pilot, "vm-2: its VMM died: killed by SIGKILL")
            (template,) = app.world.templates.values()
            assert template.page_server_pid is not None
            psutil.Process(template.page_server_pid).send_signal(signal.SIGKILL)
            shown = await until_shown(pilot, "source: its page server ")
            assert template.id not in shown
            await until(pilot, lambda: not app.world.alarms.holding(Kind.PAGER) and app.world.alarms.over)
            await pilot.press("a", "A", "escape")
            await until(pilot, lambda: "a lists them" not in screen_text(pilot))
            assert "✗ died" in row(pilot, "vm-2")
        await running.client.delete("source", cascade=True)


def test_ascii_has_a_sign_for_a_died_one() -> None:
    assert ASCII.died.isascii()
    assert ASCII.died not in ASCII.states.values()


async def test_what_the_host_lacks_is_an_alarm_of_no_row() -> None:
    low = HostStatistics(memory_total_bytes=16 << 30, memory_available_bytes=1 << 20)
    async with host(family()).run_test(size=(120, 40)) as pilot:
        await until(pilot, lambda: tree(pilot).rows)
        await hear(pilot, Statistics(at=BEGIN, instances=(), host=low))
        await until_shown(pilot, "host: the host is low on memory: 1 MiB of 16 GiB left")
        await pilot.press("a", "enter")
        assert isinstance(pilot.app.screen, AlarmsScreen)
        await asyncio.sleep(0)
