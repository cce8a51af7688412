"""The link to the supervisor: how old what is shown is, what is said of it, and what stays as it was."""

import signal
from datetime import UTC, datetime
from pathlib import Path

import pytest
from textual.pilot import Pilot

from forktui.client.feed import QUIET_SECONDS, Connection, Feed, Link
from forktui.client.transport import DATA_DIR
from forktui.tui.app import ForkTui
from forktui.tui.widgets.banner import Banner
from forktui.view.rows import text_of
from supervisor.models import Activity, FanOutRequest
from tests.harness.pictured_hosts import Leaving
from tests.harness.pilot import screen_text, tree, until, until_shown
from tests.harness.supervisor_process import Home, supervisor
from tests.harness.told_hosts import SUPERVISOR, family, instance, reset
from tests.harness.verified_guests import standby_source
from tests.tui.test_feed import Told, answering, following, sent

pytestmark = pytest.mark.usefixtures("plain_environment")

SIZE = (120, 40)


def banner(connection: Connection, now: float) -> str:
    """What the banner says; empty while it is not there."""
    shown = Banner()
    shown.lay_out = lambda: None  # type: ignore[method-assign]
    shown.show(connection, now)
    return "\n".join(map(text_of, shown.paint(120, 2))) if shown.display else ""


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        (Connection(heard_at=1), ""),
        (Connection(Link.LIVE, heard_at=9, event_at=9), ""),
        (Connection(Link.LOST, 1, 12, 1, "none listens"), "Waiting for the supervisor, for 9s so far. Next try in 2s"),
        (Connection(Link.LOST, 9, 12, 1, "gone", event_at=5), "Not connected: data is 5s old, actions are off. Next"),
        (Connection(Link.SILENT, 9, reason="stopped", event_at=7), "No answer for 3s: what is shown may be old"),
        (Connection(Link.LIVE, 10, event_at=0), "No news for 10s: what is shown may be old"),
    ],
)
def test_the_banner_says_how_old_the_data_is(connection: Connection, says: str) -> None:
    said = banner(connection, 10)
    assert said.strip().startswith(says)
    assert bool(said) is bool(says)
    assert connection.reason in said


@pytest.mark.parametrize(("height", "rows", "whole"), [(4, 3, True), (2, 1, False)])
def test_a_reason_wraps_names_the_directory_and_is_marked_where_it_is_cut(height: int, rows: int, whole: bool) -> None:
    shown = Banner()
    shown.lay_out = lambda: None  # type: ignore[method-assign]
    reason = f"/run/forktui/forktui.sock: nobody listens: start it: forktui-supervisor --data-dir {DATA_DIR}"
    shown.show(Connection(Link.LOST, 9, 12, 1, reason, event_at=5), 10, "/var/lib/my forks")
    _, *lines = map(text_of, shown.paint(50, height))
    assert len(lines) == rows
    assert all(len(line) <= 50 for line in lines)
    assert (" ".join(" ".join(lines).split()).endswith("--data-dir '/var/lib/my forks'")) is whole
    assert lines[-1].endswith("…") is not whole


@pytest.mark.parametrize("size", [(40, 12), (80, 24), (120, 40)])
async def test_at_any_size_the_tree_is_below_the_banner(size: tuple[int, int]) -> None:
    source = Leaving([reset(family())])
    source.more = ", a word" * 99
    app = ForkTui(source, now=lambda: 0.0)
    async with app.run_test(size=size) as pilot:
        shown = await until_shown(pilot, "Not connected")
        assert " source " in shown
        assert "…" in shown
        assert app.dashboard.query_one(Banner).size.height <= 1 + size[1] // 6


def test_what_is_shown_is_stale_only_where_there_is_something_to_show() -> None:
    assert not Connection(Link.LOST).stale
    assert Connection(Link.LOST, event_at=1).stale
    assert Connection(Link.SILENT, event_at=1).stale
    assert not Connection(Link.LIVE, heard_at=QUIET_SECONDS, event_at=1).stale
    assert Connection(Link.LIVE, heard_at=QUIET_SECONDS, event_at=0).stale


async def test_a_supervisor_that_shows_life_and_tells_nothing_is_quiet() -> None:
    times = [0.0]
    changed: list[Connection] = []
    feed = Feed(None, lambda event: None, changed.append, lambda: times[-1])  # type: ignore[arg-type]
    feed._event_at = 0.0
    feed.connection = Connection(Link.LIVE, event_at=0.0)
    for now in (4.0, 8.0, 10.0, 12.0):
        times.append(now)
        feed._alive()
    assert [connection.quiet for connection in changed] == [True]
    assert feed.connection.age(12.0) == "12s"


def messages(told: list[Activity]) -> list[str]:
    return [activity.message for activity in told]


async def test_what_becomes_of_the_connection_is_told_as_what_happens_is(run_dir: Path) -> None:
    socket, told = run_dir / "s.sock", list[Activity]()
    first = reset([instance("a")])
    other = first.model_copy(update={"snapshot": first.snapshot.model_copy(
        update={"supervisor": SUPERVISOR.model_copy(update={"pid": 8})}
    )})  # fmt: skip
    happened = Activity(at=datetime.now(UTC), level="info", message="a: stopped")
    async with following(socket, told.append) as (feed, heard):
        await heard.until(lambda: feed.connection.attempts == 1)
        assert told == []
        async with answering(socket, sent(first, 41), sent(happened, 42), sent(other, 43)):
            feed.retry_now()
            await heard.until(lambda: len(heard.events) == 3)
            await heard.until(lambda: sum("again" in message for message in messages(told)) == 2)
    connected, lost, resumed, lost_again, anew, *_ = messages(told)
    assert connected == "connected to the supervisor (pid 7), which was waited for 0s"
    assert lost.startswith(f"not connected any more: {socket}: the stream of events ended")
    assert resumed == "connected again after 0s: nothing is missing"
    assert lost_again == lost
    assert anew == "connected again after 0s, to another supervisor (pid 8): what happened meanwhile is not listed"
    assert [activity.level for activity in told[:3]] == ["info", "warning", "info"]
    assert isinstance(heard, Told)


async def test_a_restart_of_the_supervisor_keeps_cursor_and_marks_and_is_listed(embedded: Home) -> None:
    async with supervisor(embedded) as running:
        source = await standby_source(running.client)
        await running.client.fan_out(source.id, FanOutRequest(count=3, name_prefix="vm", target_state="Standby"))
        app = ForkTui(embedded.socket, on_mount_focus="vm-2")
        async with app.run_test(size=SIZE) as pilot:
            await until(pilot, lambda: len(tree(pilot).rows) == 4 and tree(pilot).cursor == 2)
            cursor = tree(pilot).cursor_id
            await pilot.press("space", "k")
            await until_shown(pilot, "1 marked")
            await running.end(signal.SIGKILL)
            shown = await until_shown(pilot, "Not connected: data is")
            assert "not connected any more: " in shown
            assert is_faint(pilot)
            async with supervisor(embedded):
                await pilot.press("ctrl+r")
                await until_shown(pilot, "connected again after")
                assert "to another supervisor" in screen_text(pilot)
                assert tree(pilot).cursor_id == cursor
                assert set(tree(pilot).marked) == {cursor}
                assert not is_faint(pilot)


def is_faint(pilot: Pilot[None]) -> bool:
    """Whether the rows of the tree are drawn faintly."""
    return any(segment.style is not None and bool(segment.style.dim) for segment in tree(pilot).render_line(1))
