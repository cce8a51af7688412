"""The embedded VMM's balloon: Firecracker's requests, real madvise, and zeros where pages were given back."""

from collections.abc import Iterator
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from supervisor.embedded.cpu import Cpu
from supervisor.guests.pagewalker import HOT_BASE, MIB
from tests.harness.embedded_balloon import (
    BALLAST,
    BALLAST_MIB,
    FOR_EVER,
    MEM_MIB,
    MEMORY,
    ONCE,
    PAGES,
    ballast,
    boot,
    inflate_to,
    pass_once_more,
)
from tests.harness.pagewalker_guest import KERNEL, extents, merged
from tests.harness.vmm_process import Start, VmmProcess, vmms

NO_BALLOON = "Balloon config error: No balloon device found"
TOO_LARGE = "Balloon config error: Amount of pages requested is too large"


def resident(vmm: VmmProcess) -> int:
    """How many bytes of its own memory the VMM has."""
    lines = Path(f"/proc/{vmm.pid}/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("Anonymous:")).split()[1])


def test_the_requests_of_a_balloon(start: Start) -> None:
    vmm = start()
    assert vmm.refusal("GET", "/balloon").startswith(NO_BALLOON)
    before_start = "The requested operation is not supported before starting the microVM."
    assert vmm.refusal("PATCH", "/balloon", {"amount_mib": 1}) == before_start
    assert vmm.refusal("GET", "/balloon/statistics") == before_start
    vmm.do("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": MEM_MIB})
    too_large = {"amount_mib": MEM_MIB + 1, "deflate_on_oom": False}
    assert vmm.refusal("PUT", "/balloon", too_large).startswith(f"{TOO_LARGE}: 65 MiB of a machine with 64")
    vmm.do("PUT", "/balloon", {"amount_mib": MEM_MIB, "deflate_on_oom": True})
    smaller = {"vcpu_count": 1, "mem_size_mib": MEM_MIB - 1}
    assert "smaller than the previously set balloon" in vmm.refusal("PUT", "/machine-config", smaller)
    vmm.do("PUT", "/balloon", {"amount_mib": 2, "deflate_on_oom": True})
    config = {"amount_mib": 2, "deflate_on_oom": True, "stats_polling_interval_s": 0}
    assert vmm.request("GET", "/balloon") == (200, config)
    vmm.do("PUT", "/boot-source", {"kernel_image_path": str(KERNEL), "boot_args": FOR_EVER})
    vmm.do("PUT", "/actions", {"action_type": "InstanceStart"})
    vmm.console.until("balloon 512")
    assert "after starting" in vmm.refusal("PUT", "/balloon", config)
    assert vmm.refusal("PATCH", "/balloon", {"amount_mib": MEM_MIB + 1}).startswith(TOO_LARGE)
    assert "Statistics for the balloon device are not enabled" in vmm.refusal("GET", "/balloon/statistics")
    inflate_to(vmm, 3)
    assert vmm.request("GET", "/balloon") == (200, {**config, "amount_mib": 3})


def test_a_balloon_and_a_snapshot_do_not_go_together(start: Start, ballasted: tuple[Path, Path]) -> None:
    vmm = start()
    vmm.do("PUT", "/balloon", {"amount_mib": 1, "deflate_on_oom": False})
    message = vmm.refusal("PUT", "/snapshot/load", {"snapshot_path": str(ballasted[0]), "mem_file_path": "mem"})
    assert "not allowed after configuring boot-specific resources" in message


@pytest.mark.parametrize(
    ("method", "body", "message"),
    [
        ("PUT", {"amount_mib": 1}, "missing field `deflate_on_oom`"),
        ("PUT", {"amount_mib": -1, "deflate_on_oom": False}, "invalid value: int -1, expected u32 in `amount_mib`"),
        ("PUT", {"amount_mib": 1, "deflate_on_oom": 0}, "invalid type: int 0, expected bool"),
        ("PUT", {"amount_mib": 1, "deflate_on_oom": False, "stats_polling_interval_s": 65536}, "expected u16"),
        ("PATCH", {"amount_mib": 1 << 32}, "expected u32"),
        ("PATCH", {"amount_mib": 1, "stats_polling_interval_s": 1}, "unknown field `stats_polling_interval_s`"),
        ("PATCH", {}, "missing field `amount_mib`"),
    ],
)
def test_bodies_that_are_no_balloon(unused: VmmProcess, method: str, body: Any, message: str) -> None:
    assert message in unused.refusal(method, "/balloon", body)


@pytest.fixture(scope="module")
def unused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VmmProcess]:
    """A VMM that nothing has been asked of."""
    with vmms(tmp_path_factory.mktemp("unused")) as start:
        yield start()


def test_firecracker_answers_the_same(start: Start, run_dir: Path, firecracker: Path) -> None:
    program = [str(firecracker), "--log-path", "/dev/stderr"]
    put = {"amount_mib": 1, "deflate_on_oom": False}
    ours, theirs = start(), start(program=program)
    for method, path, body in (
        ("GET", "/balloon", None),
        ("GET", "/balloon/statistics", None),
        ("PATCH", "/balloon", {"amount_mib": 1}),
        ("PUT", "/balloon", {**put, "amount_mib": 129}),
        ("PUT", "/balloon", {**put, "amount_mib": 128}),
        ("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 127}),
        ("PUT", "/balloon", put),
        ("GET", "/balloon", None),
        ("PUT", "/balloon", {**put, "stats_polling_interval_s": 1}),
        ("PUT", "/boot-source", {"kernel_image_path": str(KERNEL), "boot_args": ONCE}),
        ("PUT", "/actions", {"action_type": "InstanceStart"}),
        ("GET", "/balloon", None),
        ("PUT", "/balloon", put),
        ("PATCH", "/balloon", {"amount_mib": 3}),
    ):
        status, answer = ours.request(method, path, body)
        their_status, their_answer = theirs.request(method, path, body)
        assert (method, path, status) == (method, path, their_status)
        if status == 400:
            assert answer["fault_message"].startswith(their_answer["fault_message"].rstrip("."))
        else:
            assert answer == their_answer
    for vmm in (ours, theirs):
        vmm.console.until("balloon 768")
        vmm.console.until("done")
    statistics, their_statistics = (vmm.request("GET", "/balloon/statistics")[1] for vmm in (ours, theirs))
    assert statistics == {name: their_statistics[name] for name in statistics}
    for vmm in (ours, theirs):
        assert vmm.request("PATCH", "/balloon", {"amount_mib": 129})[0] == 400
    (_, memory), (_, their_memory) = ours.snapshot("1"), theirs.snapshot("2")
    assert memory.read_bytes()[HOT_BASE:] == their_memory.read_bytes()[HOT_BASE:]


def test_pages_in_the_balloon_are_the_hosts_and_come_back_zero(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, FOR_EVER)
    full = resident(vmm)
    inflate_to(vmm, 3)
    # The rest is what the interpreter does meanwhile.
    assert full - resident(vmm) == pytest.approx(3 * MIB, abs=MIB // 2)
    pass_once_more(vmm)
    assert ballast(vmm.snapshot()[1]) == ["pattern"] + ["zeros"] * 3
    statistics = {"target_pages": 768, "actual_pages": 768, "target_mib": 3, "actual_mib": 3}
    assert vmm.request("GET", "/balloon/statistics") == (200, statistics)
    vmm.set_balloon(1)
    statistics |= {"target_pages": 256, "target_mib": 1}
    assert vmm.request("GET", "/balloon/statistics") == (200, statistics)
    vmm.resume()
    vmm.console.until("balloon 256")
    pass_once_more(vmm)
    assert ballast(vmm.snapshot("2")[1]) == ["pattern"] + ["zeros"] * 3


def test_a_balloon_takes_no_more_than_the_ballast(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, FOR_EVER, balloon_mib=MEM_MIB)
    vmm.console.until(f"balloon {BALLAST_MIB * PAGES}")
    pass_once_more(vmm)
    statistics = vmm.request("GET", "/balloon/statistics")[1]
    assert (statistics["target_mib"], statistics["actual_mib"]) == (MEM_MIB, BALLAST_MIB)


def test_a_guest_that_is_done_still_has_a_balloon(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, ONCE)
    vmm.console.until("done")
    inflate_to(vmm, 2)
    inflate_to(vmm, 0)
    assert vmm.console.all() == ["ready", "pass 1", "done", "balloon 512", "balloon 0"]


def test_an_interrupt_ends_the_guests_idling_once() -> None:
    begun: SimpleQueue[None] = SimpleQueue()

    def steps() -> Iterator[float | None]:
        while True:
            begun.put(None)
            yield None

    cpu = Cpu(steps(), lambda _: None)
    cpu.resume()
    begun.get(timeout=5)
    cpu.interrupt()
    begun.get(timeout=5)
    with pytest.raises(Empty):
        begun.get(timeout=0.2)


def test_what_a_fork_gives_back_is_not_the_mem_files_any_more(start: Start, ballasted: tuple[Path, Path]) -> None:
    fork = start()
    before = ballasted[1].read_bytes()
    fork.load(ballasted[0], "File", ballasted[1])
    fork.console.until("done")
    inflate_to(fork, 2)
    inflate_to(fork, 1)
    _, mem_file = fork.snapshot("2")
    assert ballast(mem_file) == ["pattern"] * 2 + ["zeros"] * 2
    assert ballasted[1].read_bytes() == before


def test_a_snapshot_carries_the_balloon(start: Start, run_dir: Path) -> None:
    source = boot(start, run_dir, FOR_EVER)
    inflate_to(source, 3)
    source.pause()
    source.set_balloon(1)
    fork = start()
    state, mem_file = source.snapshot()
    fork.load(state, "File", mem_file, resume=False)
    config = {"amount_mib": 1, "deflate_on_oom": False, "stats_polling_interval_s": 1}
    assert fork.request("GET", "/balloon") == (200, config)
    assert fork.request("GET", "/balloon/statistics")[1]["actual_mib"] == 3
    fork.resume()
    assert fork.console.until("pass 1") == ["restored", "balloon 256", "pass 1"]
    inflate_to(fork, 0)
    pass_once_more(fork)


def test_a_diff_has_what_the_balloon_took_as_zeros(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, FOR_EVER, track=True)
    _, base = vmm.snapshot("1")
    vmm.resume()
    inflate_to(vmm, 3)
    inflate_to(vmm, 1)
    state, diff = vmm.snapshot("2", "Diff")
    _, full = vmm.snapshot("3")
    assert ballast(full) == ["pattern"] + ["zeros"] * 3
    assert extents(diff)[-1] == (MEMORY - 3 * MIB, MEMORY)
    assert merged(base, diff) == full.read_bytes()
    (run_dir / "flat").write_bytes(merged(base, diff))
    fork = start()
    fork.load(state, "File", run_dir / "flat")
    fork.console.until("pass 1")
    inflate_to(fork, 0)
    pass_once_more(fork)


def test_a_balloon_before_the_first_snapshot_leaves_nothing_in_it(start: Start, run_dir: Path) -> None:
    vmm = boot(start, run_dir, FOR_EVER, balloon_mib=3, track=True)
    vmm.console.until("balloon 768")
    _, diff = vmm.snapshot("1", "Diff")
    assert ballast(diff) == ["pattern"] + ["zeros"] * 3
    assert extents(diff)[-1] == (BALLAST, BALLAST + MIB)
