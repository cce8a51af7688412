"""Hosts to look at: instances, snapshots and worlds with what a test needs and defaults for the rest."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from forktui.model.reducing import reduce
from forktui.model.world import World
from supervisor.models import (
    Activity,
    HostSnapshot,
    HostStatistics,
    Instance,
    InstanceStatistics,
    Reset,
    State,
    Statistics,
    SupervisorInfo,
    Template,
)

FORKS = ("fork-1", "fork-2", "fork-3")
BEGIN = datetime(2026, 1, 1, 12, tzinfo=UTC)
SUPERVISOR = SupervisorInfo(
    pid=7,
    version="0.1.0",
    started_at=BEGIN,
    data_dir="/var/lib/forktui",
    hypervisor="embedded",
    hypervisor_version="0.1.0",
)


def instance(name: str, **fields: object) -> Instance:
    """A Running instance with its name as its id; `age` is seconds after BEGIN."""
    age = fields.pop("age", 0)
    assert isinstance(age, int | float)
    values: dict[str, object] = {
        "id": name,
        "name": name,
        "image": "pagewalker",
        "state": State.RUNNING,
        "created_at": BEGIN + timedelta(seconds=age),
        "hypervisor": "embedded",
        "size": "128MB",
        "vcpus": 1,
        "has_snapshot": False,
        "fork_count": 0,
        "mem_locked": False,
        "size_bytes": 128 << 20,
    }
    values |= fields
    if values["state"] is State.RUNNING:
        values.setdefault("vmm_pid", 1000)
    return Instance.model_validate(values)


def locked_source(name: str, holders: Iterable[str], **fields: object) -> Instance:
    """A Standby instance that the named forks lock."""
    names = tuple(holders)
    return instance(name, state=State.STANDBY, fork_count=len(names), mem_locked=bool(names), locked_by=names, **fields)


def fork_of(source: str, name: str, **fields: object) -> Instance:
    """A running share_memory fork."""
    values: dict[str, object] = {"source_id": source, "fork_kind": "share_memory", "memory_backend": "uffd"}
    return instance(name, **{**values, **fields})


def reset(
    instances: Iterable[Instance], statistics: Iterable[InstanceStatistics] = (), templates: Iterable[Template] = ()
) -> Reset:
    """The first event of a stream."""
    snapshot = HostSnapshot(
        supervisor=SUPERVISOR,
        instances=tuple(instances),
        templates=tuple(templates),
        statistics=tuple(statistics),
        host=HostStatistics(memory_total_bytes=16 << 30, memory_available_bytes=8 << 30),
    )
    return Reset(snapshot=snapshot)


def world_of(*instances: Instance, statistics: Iterable[InstanceStatistics] = ()) -> World:
    """The world that a supervisor with these instances tells of."""
    return reduce(World(), reset(instances, statistics))


def family() -> list[Instance]:
    """A source and its three forks."""
    return [locked_source("source", FORKS), *(fork_of("source", name, age=n + 1) for n, name in enumerate(FORKS))]


def chain(length: int) -> list[Instance]:
    """One fork below the other."""
    return [fork_of(f"i{n - 1}", f"i{n}", age=n) for n in range(length)]


def fan(width: int) -> list[Instance]:
    """One source with many forks."""
    return [locked_source("i0", ["i1"]), *(fork_of("i0", f"i{n}", age=n) for n in range(1, width))]


def said(second: int, message: str) -> Activity:
    """Something that happened."""
    return Activity(at=BEGIN + timedelta(seconds=second), level="info", message=message)


def sampled(seconds: float, *counters: InstanceStatistics, host: HostStatistics | None = None) -> Statistics:
    """Counters of some instances so long after BEGIN; of one that is there twice the last."""
    each = {one.id: one for one in counters}
    return Statistics(
        at=BEGIN + timedelta(seconds=seconds),
        clock=seconds,
        instances=tuple(each.values()),
        host=host or HostStatistics(),
    )


def pager(pid: int | None, restarts: int = 0, forks: int = 2) -> Template:
    """The template of `source`, with its page server."""
    return Template(
        id="t", instance_id="source", size_bytes=1, page_size=4096, fork_count=forks, layers=1, page_server_pid=pid,
        page_server_restarts=restarts,
    )  # fmt: skip
