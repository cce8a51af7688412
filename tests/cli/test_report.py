"""How a demo is judged: each thing that may be wrong with a fork is found, and named."""

import pytest

from forktui.demo.report import Report, judge, table
from forktui.model.reducing import reduce
from forktui.model.world import World
from supervisor.models import Guest, Instance, InstanceStatistics, Phase, State, Template
from tests.harness.told_hosts import fork_of, locked_source, reset

RECORDED = 4100
VERIFIED = Guest(ready=True, restored=True, passes=2)


def fork(number: int, **fields: object) -> Instance:
    phases = (Phase(name="load", milliseconds=12.5), Phase(name="resume", milliseconds=0.5))
    return fork_of("source", f"fork-{number}", phases=phases, **fields)


def counters(number: int, **fields: object) -> InstanceStatistics:
    values: dict[str, object] = {"faults": 3, "prefetched_pages": RECORDED, "residual_faults": 2, "guest": VERIFIED}
    return InstanceStatistics.model_validate({"id": f"fork-{number}", **values, **fields})


def world(*forks: tuple[Instance, InstanceStatistics], recorded: int = RECORDED) -> World:
    """Return a world with a source, its warm-up fork, which is not judged, and these forks."""
    template = Template(
        id="t",
        instance_id="source",
        size_bytes=128 << 20,
        page_size=4096,
        fork_count=len(forks),
        layers=1,
        recorded_pages=recorded,
        recorded_runs=5,
    )
    source = locked_source("source", [one.name for one, _ in forks])
    instances = [source, fork_of("source", "warm-up"), *(one for one, _ in forks)]
    return reduce(World(), reset(instances, [sample for _, sample in forks], [template]))


def judged(**fields: object) -> Report:
    """Return the report on a demo of one fork whose counters have these fields."""
    return judge(world((fork(1), counters(1, **fields))), 1)


def test_a_demo_that_went_well() -> None:
    report = judge(world((fork(2), counters(2)), (fork(10), counters(10)), (fork(1), counters(1))), 3)
    assert report.ok
    assert report.reasons == ()
    assert [one.name for one in report.forks] == ["fork-1", "fork-2", "fork-10"]
    assert (report.hypervisor, report.recorded.pages, report.recorded.runs) == ("embedded", RECORDED, 5)
    assert (report.source.state, report.source.fork_count, report.source.mem_locked) == ("Standby", 3, True)
    first = report.forks[0]
    assert first.phases == {"load": 12.5, "resume": 0.5}
    assert (first.state, first.faults, first.prefetched_pages, first.passes) == ("Running", 3, RECORDED, 2)


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"guest": Guest(restored=True, passes=1, corrupt="0x2000000")},
            "fork-1 found its memory CORRUPT at 0x2000000",
        ),
        ({"guest": Guest(restored=True)}, "fork-1 verified nothing"),
        ({"guest": Guest(passes=9)}, "fork-1 did not notice that it was restored"),
        ({"prefetched_pages": 0}, "fork-1 had no page prefetched"),
        ({"residual_faults": 42}, "fork-1 had 42 faults after prefetch, more than 1% of the 4100 recorded pages"),
    ],
)
def test_a_fork_that_went_wrong(fields: dict[str, object], reason: str) -> None:
    report = judged(**fields)
    assert not report.ok
    assert report.reasons == (reason,)


def test_as_many_faults_as_allowed() -> None:
    assert judged(residual_faults=41).ok


def test_a_fork_without_counters_verified_nothing() -> None:
    report = judge(world((fork(1), InstanceStatistics(id="somebody-else"))), 1)
    assert "fork-1 verified nothing" in report.reasons


def test_a_fork_that_does_not_run() -> None:
    report = judge(world((fork(1, state=State.STOPPED), counters(1))), 1)
    assert report.reasons == ("fork-1 is Stopped",)


def test_a_fork_that_is_missing() -> None:
    assert judge(world((fork(1), counters(1))), 2).reasons == ("made 1 of 2 forks",)


def test_no_recorded_pages() -> None:
    assert "no hot pages were recorded" in judge(world((fork(1), counters(1)), recorded=0), 1).reasons


def test_the_table_says_the_same() -> None:
    lines = table(judge(world((fork(1), counters(1)), (fork(2), counters(2, residual_faults=99))), 2)).splitlines()
    assert lines[0] == "hypervisor  embedded 0.1.0"
    assert lines[1] == "source      source (pagewalker, 128 MiB): Standby, mem_locked by 2 forks"
    assert lines[2] == "recorded    4100 hot pages in 5 runs"
    head, first, second = (line.split() for line in lines[4:7])
    assert head == ["FORK", "STATE", "PASSES", "FAULTS", "PREFETCHED", "RESIDUAL", "LOAD", "RESUME"]
    assert first == ["fork-1", "Running", "2", "3", "4100", "2", "12.5", "ms", "0.5", "ms"]
    assert second[5] == "99"
    assert lines[-1].startswith("FAILED: fork-2 had 99 faults after prefetch")
    assert table(judge(world((fork(1), counters(1))), 1)).splitlines()[-1] == "ok: every fork verified its memory"
