"""What the dashboard looks like while something is wrong, while nothing is there, and while nobody answers.

FORKTUI_UPDATE_SNAPSHOTS=1 draws the pictures anew.
"""

import asyncio
import os
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from datetime import datetime, timedelta, tzinfo

import pytest

from forktui.client import feed
from forktui.client.api import SupervisorUnreachableError
from forktui.tui.app import ForkTui
from supervisor.models import (
    Activity,
    Event,
    Guest,
    HostStatistics,
    Instance,
    InstanceStatistics,
    Reset,
    State,
    Statistics,
    Template,
)
from tests.harness.checkout import ROOT
from tests.harness.pilot import tree, until, until_shown
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.told_hosts import BEGIN, SUPERVISOR, fork_of, instance, locked_source, reset

PICTURES = ROOT / "tests" / "pictures"
UPDATE = "FORKTUI_UPDATE_SNAPSHOTS"
WHY = "there is no firecracker in PATH: install it, or name the binary with --firecracker PATH (FORKTUI_FIRECRACKER)"
GIB = 1 << 30


class Still(datetime):
    """A clock that stands still."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Still":
        return cls.fromtimestamp((BEGIN + timedelta(seconds=40)).timestamp(), tz)


@pytest.fixture(autouse=True)
def universal_time(plain_environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of this terminal in the pictures, and a time of day that is always the same."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        patch.setattr(feed, "datetime", Still)
        time.tzset()
        yield
    time.tzset()


class Leaving(RecordedSupervisor):
    """Tells events and goes; nobody answers the next time."""

    left = False

    async def events(
        self,
        last_event_id: str | None = None,
        silence: float = 0.0,
        alive: Callable[[], object] = lambda: None,
        silent: Callable[[str], object] = lambda line: None,
    ) -> AsyncGenerator[tuple[str, Event], None]:
        if self.left:
            await asyncio.Event().wait()
        self.left = True
        for number, event in enumerate(self._events):
            yield f"recorded-{number}", event
        start = "start one with: forktui-supervisor"
        raise SupervisorUnreachableError(f"{self.socket}: the supervisor there is gone; {start}")


def happened(second: int, message: str, level: str = "info", **more: object) -> Activity:
    fields = {"at": BEGIN + timedelta(seconds=second), "level": level, "message": message, **more}
    return Activity.model_validate(fields)


def machines() -> list[Instance]:
    """Two families on Firecracker, some of which are in trouble."""
    real = {"hypervisor": "firecracker", "vmm_pid": 4000}
    web = [fork_of("web", f"web-{n}", age=n, template_id="t", **real) for n in range(1, 6)]
    ended = {"state": State.STOPPED, "vmm_pid": None, "memory_backend": None}
    web[1] = web[1].model_copy(
        update={**ended, "died": True, "exit_message": "killed by SIGKILL", "stopped_at": BEGIN + timedelta(seconds=7)}
    )
    web[4] = web[4].model_copy(update={**ended, "exit_message": "stopped on request", "exit_code": 0})
    db = [fork_of("db", f"db-{n}", age=10 + n, **real) for n in range(1, 4)]
    return [
        locked_source("web", [one.name for one in web], hypervisor="firecracker"),
        *web,
        locked_source("db", [one.name for one in db], hypervisor="firecracker", age=9),
        *db,
        instance("template-old", state=State.UNKNOWN, state_error="template.json: it is not JSON", age=20),
    ]


def counters() -> list[InstanceStatistics]:
    def some(name: str, faults: int, **more: object) -> InstanceStatistics:
        fields = {"id": name, "faults": faults, "private_bytes": 17 << 20, "shared_bytes": 2 << 20, **more}
        return InstanceStatistics.model_validate(fields)

    usual = [some(f"web-{n}", 71, guest=Guest(restored=True, passes=8)) for n in (1, 3, 4)]
    return [*usual, some("db-1", 12, oldest_fault_ms=4200.0), some("db-2", 80), some("db-3", 80)]


def troubled() -> list[Event]:
    """What a supervisor tells of them."""
    dead = Template(id="t", instance_id="web", size_bytes=128 << 20, page_size=4096, fork_count=5, layers=1)
    whole = reset(machines(), counters(), [dead])
    about = SUPERVISOR.model_copy(update={"hypervisor": "firecracker", "hypervisor_version": "1.12.1"})
    host = HostStatistics(
        cpu_percent=12.0,
        memory_total_bytes=16 * GIB,
        memory_available_bytes=6 * GIB,
        disk_total_bytes=100 * GIB,
        disk_available_bytes=3 * GIB,
    )
    refused = "db: fan-out of 2000 refused: the host has memory for 365: each takes 16.5 MiB"
    return [
        Reset(snapshot=whole.snapshot.model_copy(update={"supervisor": about, "host": host, "at": BEGIN})),
        Statistics(at=BEGIN + timedelta(seconds=20), clock=20.0, instances=(), host=host),
        happened(7, "web-2: its VMM ended: killed by SIGKILL", "alarm", instance_id="web-2", shown=True),
        happened(21, refused, "warning", instance_id="db", code="insufficient_resources"),
        happened(24, "the page server (pid 77) of web died, and has left 3 running forks", "alarm", shown=True),
    ]


def empty() -> list[Event]:
    about = SUPERVISOR.model_copy(update={"firecracker_problem": WHY})
    return [Reset(snapshot=reset([]).snapshot.model_copy(update={"supervisor": about}))]


@pytest.mark.parametrize(
    ("name", "size", "events", "keys", "words"),
    [
        ("120x40-alarms", (120, 40), troubled(), (), "more, a lists them"),
        ("80x24-alarms", (80, 24), troubled(), (), "more, a lists them"),
        ("120x40-alarms-list", (120, 40), troubled(), ("a", "j"), "REFUSED"),
        ("120x40-empty", (120, 40), empty(), (), "There is no instance yet."),
        ("80x24-empty", (80, 24), empty(), (), "There is no instance yet."),
        ("120x40-disconnected", (120, 40), troubled(), (), "Next try in 1s"),
    ],
)
async def test_the_dashboard_looks_as_it_did(
    name: str, size: tuple[int, int], events: Sequence[Event], keys: tuple[str, ...], words: str
) -> None:
    source = Leaving(events) if name.endswith("disconnected") else RecordedSupervisor(events)
    private = {"private": True, "title": "private supervisor"} if name.endswith("empty") else {}
    app = ForkTui(source, now=lambda: 20.0, clock=lambda: 100.0, **private)  # type: ignore[arg-type]
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.world.supervisor is not None and app.dashboard.world == app.world)
        await until(pilot, lambda: tree(pilot).cursor_id is not None or not app.world.instances)
        await pilot.press(*keys)
        await until_shown(pilot, words)
        await pilot.pause(0.3)
        svg = app.export_screenshot(title="forktui")
    drawn = re.sub(r"terminal-\d+", "terminal", svg) + "\n"
    kept = PICTURES / f"{name}.svg"
    if os.environ.get(UPDATE) == "1":
        kept.write_text(drawn)
    assert drawn == kept.read_text(), f"{kept.name} looks different: set {UPDATE}=1 and look at what changed"
