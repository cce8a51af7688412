"""Hosts for pictures: one in trouble, an empty one, a thousand forks; and a supervisor that goes."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable
from datetime import timedelta

from forktui.client.api import SupervisorUnreachableError
from supervisor.models import (
    Activity,
    Event,
    Guest,
    HostStatistics,
    Instance,
    InstanceStatistics,
    Jails,
    Reset,
    State,
    Statistics,
    Template,
)
from tests.harness.recorded_supervisor import RecordedSupervisor
from tests.harness.told_hosts import BEGIN, SUPERVISOR, fork_of, instance, locked_source, reset

WHY = "there is no firecracker in PATH: install it, or name the binary with --firecracker PATH (FORKTUI_FIRECRACKER)"
GIB = 1 << 30
FIRECRACKER = {
    "hypervisor": "firecracker",
    "hypervisor_version": "1.12.1",
    "jails": Jails(mode="auto", jailed=True, page_servers=("a uid of its own",)),
}
"""What a supervisor says of itself whose VMs run on Firecracker."""


class Leaving(RecordedSupervisor):
    """Tells events and goes; nobody answers the next time."""

    left = False
    more = ""
    """What the reason goes on with."""

    async def events(
        self,
        last_event_id: str | None = None,
        silence: float = 0.0,
        alive: Callable[[], object] = lambda: None,
        silent: Callable[[str], object] = lambda line: None,
        gather: float = 0.0,
    ) -> AsyncGenerator[tuple[str, Event], None]:
        if self.left:
            await asyncio.Event().wait()
        self.left = True
        for number, event in enumerate(self._events):
            yield f"recorded-{number}", event
        start = "start one with: forktui-supervisor"
        raise SupervisorUnreachableError(f"{self.socket}: the supervisor there is gone; {start}{self.more}")


def happened(second: int, message: str, level: str = "info", **more: object) -> Activity:
    fields = {"at": BEGIN + timedelta(seconds=second), "level": level, "message": message, **more}
    return Activity.model_validate(fields)


def machines() -> list[Instance]:
    """Two families on Firecracker, some of which are in trouble."""
    real = {"hypervisor": "firecracker", "vmm_pid": 4000, "jail_uid": 1879048200}
    web = [fork_of("web", f"web-{n}", age=n, template_id="t", **real) for n in range(1, 6)]
    ended = {"state": State.STOPPED, "vmm_pid": None, "jail_uid": None, "memory_backend": None}
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
    return [*usual, some("db-1", 12, oldest_fault_ms=4200.0, stalled="stuck"), some("db-2", 80), some("db-3", 80)]


def troubled() -> list[Event]:
    """What a supervisor tells of them."""
    dead = Template(id="t", instance_id="web", size_bytes=128 << 20, page_size=4096, fork_count=5, layers=1)
    whole = reset(machines(), counters(), [dead])
    about = SUPERVISOR.model_copy(update=FIRECRACKER)
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


def read_only(events: Iterable[Event]) -> list[Event]:
    """The same host, told to somebody who may change nothing."""
    return [_read_only(event) if isinstance(event, Reset) else event for event in events]


def _read_only(event: Reset) -> Reset:
    about = event.snapshot.supervisor.model_copy(update={"writable": False})
    return Reset(snapshot=event.snapshot.model_copy(update={"supervisor": about}))


def thousand() -> list[Event]:
    """A source with a thousand forks, some of which are busy."""
    real = {"hypervisor": "firecracker", "vmm_pid": 4000, "jail_uid": 1879048200, "template_id": "t"}
    forks = [fork_of("web", f"web-{n}", age=n / 100, number=n, **real) for n in range(1, 1001)]
    told = [
        InstanceStatistics(
            id=f"web-{n}",
            faults=4118 if n == 1 else n % 7,
            prefetched_pages=0 if n == 1 else 4118,
            residual_faults=0 if n == 1 else n % 7,
            private_bytes=(16 << 20) + (n * 37 % 1000 << 10),
            shared_bytes=2 << 20,
            prefetch_bytes=0 if n == 1 else 4118 << 12,
            prefetch_ms=0.0 if n == 1 else 11.9,
            present_pages=4400,
            total_pages=32768,
            guest=Guest(restored=True, passes=8, done=True),
        )
        for n in range(1, 1001)
    ]
    source = locked_source("web", [one.name for one in forks], hypervisor="firecracker")
    template = Template(
        id="t",
        instance_id="web",
        size_bytes=128 << 20,
        page_size=4096,
        fork_count=1000,
        layers=1,
        page_server_pid=77,
        recorded_pages=4118,
        recorded_runs=12,
        precision=0.98,
        sampled_pages=2048,
        wasted_bytes=1 << 20,
    )
    whole = reset([source, *forks], told, [template])
    about = SUPERVISOR.model_copy(update=FIRECRACKER)
    host = HostStatistics(cpu_percent=61.0, memory_total_bytes=64 * GIB, memory_available_bytes=41 * GIB)
    return [
        Reset(snapshot=whole.snapshot.model_copy(update={"supervisor": about, "host": host, "at": BEGIN})),
        happened(19, "web: fan-out made 999 of 999 forks in 18.2 s"),
        Statistics(at=BEGIN + timedelta(seconds=20), clock=20.0, instances=(), host=host),
    ]
