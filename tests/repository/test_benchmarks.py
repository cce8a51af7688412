"""The benchmarks: each runs, says what it found in the shape that it promises, and leaves nothing. No times."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from benchmarks.__main__ import BENCHMARKS, INTERRUPTED, main
from benchmarks.bench import PATIENCE
from benchmarks.measurement import Bar, Result, Rounds, Row, Sample, Spread
from benchmarks.report import as_text
from tests.harness.checkout import ROOT

MODES = {
    "walk": [
        "file",
        "uffd, one page a fault",
        "uffd, fault-around",
        "uffd, prefetch",
        "uffd, concurrent prefetch",
        "C handler, one page a fault",
    ],
    "faults": ["page server", "C handler", "memcpy to absent memory", "memcpy to present memory"],
    "storm": [f"{how}, {count} forks" for how in ("one page a fault", "fault-around") for count in (1, 3)],
    "forks": ["embedded, API", "embedded, bare script"],
    "memory": ["file", "uffd, fault-around", "uffd, prefetch"],
    "takeover": ["SIGKILL in a storm"],
    "standby": ["Full", "Diff"],
    "checkpoint": ["64 KiB", "128 KiB", "1 MiB"],
    "merge": ["flatten", "compact"],
    "image": ["100 extents", "1,000 extents"],
    "disks": ["none", "shared, 1 MiB", "shared, 4 MiB", "sparse, 1 MiB", "sparse, 4 MiB", "full, 1 MiB", "full, 4 MiB"],
    "jails": ["off", "jailed"],
    "statistics": ["20 of 20 change", "2 of 20 change"],
    "thousand": [
        "a fork of a fan-out every ms",
        "one of a fan-out, p50 ms",
        "one of a fan-out, p99 ms",
        "one more fork ms",
        "list ms",
        "lineage ms",
        "attach ms",
        "CPU % just after",
        "idle CPU %",
        "CPU % with a subscriber",
        "supervisor MiB",
        "page server CPU %",
        "page server MiB",
        "private MiB a VMM",
        "cascade s",
    ],
    "crowds": ["alone", "3 readers that never read, 100 events", "10 slow and 20 idle"],
    "flood": ["quiet", "flooded"],
    "dashboard": [
        "40, 40 events/s",
        "40, all counters at 2 Hz",
        "30, 10 changes/s anywhere",
        "30, 10 changes/s on the screen",
        "40, idle",
    ],
}
BARS = {
    "walk": 6,
    "faults": 3,
    "storm": 2,
    "forks": 1,
    "memory": 0,
    "takeover": 1,
    "standby": 0,
    "checkpoint": 1,
    "merge": 0,
    "image": 1,
    "disks": 2,
    "jails": 2,
    "statistics": 1,
    "thousand": 3,
    "crowds": 0,
    "flood": 0,
    "dashboard": 7,
}
NO_FIRECRACKER = "/nonexistent/firecracker"


def run(tmp_path: Path, name: str, *options: str) -> dict[str, Any]:
    """Run one benchmark at tiny sizes and return its part of the JSON."""
    file = tmp_path / "found.json"
    assert main(["--quick", "--rounds", "2", "--only", name, "--json", str(file), *options]) == 0
    found = json.loads(file.read_text())
    assert found["rounds"] == 2
    assert {"kernel", "cores", "page_size", "firecracker", "load_averages"} <= found["machine"].keys()
    (benchmark,) = found["benchmarks"]
    assert benchmark["name"] == name
    return dict(benchmark)


def left_behind(pid: int) -> list[str]:
    """Return the directories, and the command lines of processes, that a run by this process has left."""
    mark = f"/tmp/ft-bench-{pid}-"
    commands = [" ".join(_command(process)) for process in psutil.process_iter()]
    return [*map(str, Path("/tmp").glob(f"{Path(mark).name}*")), *(command for command in commands if mark in command)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


@pytest.mark.slow
@pytest.mark.parametrize("name", BENCHMARKS)
def test_a_benchmark_runs_and_leaves_nothing(
    name: str, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    binary = (
        request.getfixturevalue("firecracker") if name in ("walk", "checkpoint", "disks", "jails") else NO_FIRECRACKER
    )
    found = run(tmp_path, name, "--firecracker", str(binary))
    assert left_behind(os.getpid()) == []
    if found["skipped"] is not None:
        pytest.skip(f"benchmark {name}: {found['skipped']}")
    assert [row["name"] for row in found["rows"]] == MODES[name]
    for row in found["rows"]:
        for spread in row["values"].values():
            assert 0 <= spread["p10"] <= spread["median"] <= spread["p90"]
    verdicts = [bar["verdict"] for bar in found["bars"] if bar["limit"] is not None]
    assert len(verdicts) == BARS[name]
    assert set(verdicts) <= {"met", "missed"}
    printed = capsys.readouterr().out
    assert printed.startswith("machine: Linux ")
    assert all(mode in printed for mode in MODES[name])


def test_a_benchmark_says_in_one_line_what_this_machine_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(tmp_path, "walk", "--firecracker", NO_FIRECRACKER)
    assert NO_FIRECRACKER in found["skipped"]
    assert f"  skipped: {found['skipped']}\n" in capsys.readouterr().out
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(tmp_path, "storm")["skipped"] == "there is no C compiler to make toucher.c with: install gcc"


@pytest.mark.parametrize("options", [("--only", "walk,nothing"), ("--rounds", "0")])
def test_a_wrong_option_is_refused(options: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refusal:
        main(options)
    assert refusal.value.code == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.slow
def test_an_interrupted_run_leaves_nothing() -> None:
    command = (sys.executable, "-m", "benchmarks", "--quick", "--only", "memory", "--firecracker", NO_FIRECRACKER)
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"machine: Linux ")
        process.terminate()
        assert process.wait(PATIENCE) == INTERRUPTED
    assert left_behind(process.pid) == []


def test_modes_take_turns_and_the_first_round_is_not_counted() -> None:
    order: list[str] = []

    async def measure(mode: str) -> Sample:
        order.append(mode)
        return {"ms": float(len(order)) if mode == "a" else 2.0 * len(order)}

    rounds = asyncio.run(Rounds.take(2, ("a", "b"), measure))
    assert order == ["b", "a", "a", "b", "b", "a"]
    assert rounds.column("a", "ms") == [3.0, 6.0]
    assert rounds.column("b", "ms") == [8.0, 10.0]
    assert rounds.ratio("b", "a", "ms") == Spread.of([8 / 3, 10 / 6])


def test_a_spread_is_the_median_and_the_outer_tenths() -> None:
    assert Spread.of([float(number) for number in range(11)]) == Spread(5.0, 1.0, 9.0)
    assert Spread.of([4.0]) == Spread(4.0, 4.0, 4.0)


@pytest.mark.parametrize(
    ("bound", "limit", "verdict"),
    [
        ("at most", 1.0, "met"),
        ("at most", 0.99, "missed"),
        ("at least", 1.0, "met"),
        ("at least", 1.01, "missed"),
        ("at most", None, ""),
    ],
)
def test_a_bar_is_met_or_missed_by_the_median(bound: Any, limit: float | None, verdict: str) -> None:
    assert Bar("ratio", Spread(1.0, 0.5, 2.0), bound, limit).verdict == verdict


def test_a_table_has_a_column_for_each_value_and_a_dash_where_there_is_none() -> None:
    spread = Spread(1234.5, 0.25, 12.34)
    result = Result(
        "name",
        "title",
        (Row("one", {"ms": spread}), Row("other", {"faults": Spread(3.0, 3.0, 3.0)})),
        (Bar("one / other", spread, "at most", 2.0),),
    )
    assert as_text(result).splitlines() == [
        "name: title",
        "                         ms  faults",
        "  one    1,234 (0.25..12.3)       -",
        "  other                   -       3",
        "",
        "  one / other  1,234 (0.25..12.3)  at most 2: missed",
    ]
