"""pagewalker's ballast and balloon in a real Firecracker: what is taken, and what is zero afterwards."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final

import pytest

from supervisor.guests.boot import boot_args
from supervisor.guests.pagewalker import HOT_BASE, MIB, PAGE_SIZE, ballast_end
from tests.harness.guest_page_server import page_server
from tests.harness.pagewalker_guest import (
    HOT_MIB,
    MEMORY_MIB,
    SEED,
    SILENCE,
    booted,
    filled,
    hot_set,
    passes,
    read,
    restored,
    with_flipped_byte,
)
from tests.harness.vmm_process import VmmProcess

BALLAST_MIB: Final = 4
BALLAST_END: Final = ballast_end(MEMORY_MIB * MIB)
BALLAST: Final = BALLAST_END - BALLAST_MIB * MIB
PAGES: Final = MIB // PAGE_SIZE
"""Balloon pages in a MiB."""


def with_balloon(
    firecracker: Path, folder: Path, passes: int = 0, amount_mib: int = 0, statistics_s: int = 0
) -> AbstractContextManager[VmmProcess]:
    """Return a VMM that boots pagewalker with ballast and a balloon device with the target `amount_mib`."""
    balloon = {"amount_mib": amount_mib, "deflate_on_oom": False, "stats_polling_interval_s": statistics_s}
    return booted(firecracker, folder, boot_args(HOT_MIB, passes, SEED, BALLAST_MIB), balloon=balloon)


def first_wrong_byte(address: int) -> int:
    """Return the first byte that is not zero of the page at `address` as the ballast was filled."""
    return address + next(at for at, byte in enumerate(filled(address, address + PAGE_SIZE, SEED)) if byte)


def walks_on(vmm: VmmProcess) -> bool:
    """Return whether the guest walks everything at least once more."""
    return all(vmm.console.next().startswith("pass ") for _ in range(2))


def ballast_from(first: int, end: int = BALLAST_END) -> set[int]:
    return set(range(first, end, PAGE_SIZE))


@pytest.fixture(scope="module")
def laden(firecracker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the mem-file of an endlessly walking guest with ballast of which the balloon has taken nothing."""
    folder = tmp_path_factory.mktemp("laden")
    with with_balloon(firecracker, folder / "vmm") as vmm:
        assert vmm.console.take("pass 2") == ["ready", "pass 1", "pass 2"]
        return vmm.snapshot()[1]


def test_ballast_is_the_last_of_memory(laden: Path) -> None:
    assert read(laden, BALLAST, BALLAST_MIB * MIB) == filled(BALLAST, BALLAST_END, SEED)
    assert read(laden, BALLAST - PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)
    assert read(laden, HOT_BASE, HOT_MIB * MIB) == hot_set(HOT_MIB, SEED)


def test_the_balloon_follows_its_target_as_far_as_the_ballast_goes(firecracker: Path, tmp_path: Path) -> None:
    with with_balloon(firecracker, tmp_path / "vmm", statistics_s=60) as vmm:
        vmm.console.take("ready")
        for amount_mib, pages in ((2, 2 * PAGES), (3, 3 * PAGES), (9, BALLAST_MIB * PAGES), (1, PAGES)):
            vmm.set_balloon(amount_mib)
            vmm.console.take(f"balloon {pages}")
            statistics = vmm.request("GET", "/balloon/statistics")[1]
            assert (statistics["target_mib"], statistics["actual_pages"]) == (amount_mib, pages)
        assert walks_on(vmm)
        mem_file = vmm.snapshot()[1]
    assert read(mem_file, BALLAST, BALLAST_MIB * MIB) == bytes(BALLAST_MIB * MIB)


def test_the_balloon_takes_the_last_pages_and_the_others_keep_what_they_hold(firecracker: Path, tmp_path: Path) -> None:
    with with_balloon(firecracker, tmp_path / "vmm", amount_mib=1) as vmm:
        vmm.console.take(f"balloon {PAGES}")
        mem_file = vmm.snapshot()[1]
    start = BALLAST_END - MIB
    assert read(mem_file, BALLAST, start - BALLAST) == filled(BALLAST, start, SEED)
    assert read(mem_file, start, MIB) == bytes(MIB)


def test_a_guest_that_is_done_follows_the_target(firecracker: Path, tmp_path: Path) -> None:
    with with_balloon(firecracker, tmp_path / "vmm", passes=1) as vmm:
        assert vmm.console.take("done") == ["ready", "pass 1", "done"]
        for amount_mib in (3, 1, 2, 0):
            vmm.set_balloon(amount_mib)
            assert vmm.console.next() == f"balloon {amount_mib * PAGES}"
        assert vmm.console.are_over(SILENCE)


def test_a_balloon_without_ballast_takes_nothing(firecracker: Path, tmp_path: Path) -> None:
    balloon = {"amount_mib": 1, "deflate_on_oom": False}
    with booted(firecracker, tmp_path / "vmm", boot_args(HOT_MIB, passes=0), balloon=balloon) as vmm:
        assert vmm.console.take("pass 2") == ["ready", "pass 1", "pass 2"]
        vmm.set_balloon(2)
        assert vmm.console.take("pass 5") == passes(3, 5)


def test_ballast_without_a_balloon_is_verified(firecracker: Path, tmp_path: Path) -> None:
    with booted(firecracker, tmp_path / "vmm", boot_args(HOT_MIB, 0, SEED, BALLAST_MIB)) as vmm:
        vmm.console.take("pass 2")
        mem_file = vmm.snapshot()[1]
    address = BALLAST_END - 1
    with restored(firecracker, tmp_path / "fork", with_flipped_byte(mem_file, tmp_path / "wrong", address)) as fork:
        fork.console.take(f"CORRUPT {address:#x}")
        assert fork.console.are_over(SILENCE)


@pytest.mark.parametrize("address", [BALLAST, BALLAST + 5 * PAGE_SIZE - 2, BALLAST_END - PAGE_SIZE + 1])
def test_a_wrong_byte_of_the_ballast_is_named(firecracker: Path, tmp_path: Path, laden: Path, address: int) -> None:
    with restored(firecracker, tmp_path / "fork", with_flipped_byte(laden, tmp_path / "wrong", address)) as fork:
        fork.console.take(f"CORRUPT {address:#x}")
        assert fork.console.are_over(SILENCE)


def test_a_balloon_goes_on_where_it_was_snapshotted(firecracker: Path, tmp_path: Path, laden: Path) -> None:
    with restored(firecracker, tmp_path / "inflated", laden) as fork:
        fork.set_balloon(2)
        fork.console.take(f"balloon {2 * PAGES}")
        fork.pause()
        fork.set_balloon(3)
        inflated = fork.snapshot()[1]
    assert read(inflated, BALLAST_END - 2 * MIB, 2 * MIB) == bytes(2 * MIB)
    with restored(firecracker, tmp_path / "deflated", inflated) as fork:
        fork.console.take(f"balloon {3 * PAGES}")
        fork.set_balloon(0)
        fork.console.take("balloon 0")
        assert walks_on(fork)
        deflated = fork.snapshot()[1]
    with restored(firecracker, tmp_path / "again", deflated) as fork:
        fork.console.take("restored")
        assert fork.console.take("pass 2") == passes(1, 2)


def test_the_balloon_removes_just_its_pages_from_a_userfaultfd(firecracker: Path, run_dir: Path, laden: Path) -> None:
    with (
        page_server(run_dir / "pages.sock", laden) as server,
        restored(firecracker, run_dir / "fork", laden, server.path) as fork,
    ):
        fork.console.take("restored")
        fork.console.take("pass 1")
        assert server.removed == []
        fork.set_balloon(2)
        fork.console.take(f"balloon {2 * PAGES}")
        server.until_taken(ballast_from(BALLAST_END - 2 * MIB))
        fork.set_balloon(1)
        fork.console.take(f"balloon {PAGES}")
        assert walks_on(fork)
        fork.set_balloon(3)
        fork.console.take(f"balloon {3 * PAGES}")
        server.until_taken(ballast_from(BALLAST_END - 3 * MIB))
        fork.set_balloon(0)
        fork.console.take("balloon 0")
        assert walks_on(fork)
        server.until_taken(ballast_from(BALLAST_END - 3 * MIB))


def test_a_balloon_that_was_inflated_in_the_snapshot_deflates_in_a_fork(
    firecracker: Path, run_dir: Path, laden: Path
) -> None:
    with restored(firecracker, run_dir / "inflated", laden) as vmm:
        vmm.set_balloon(3)
        vmm.console.take(f"balloon {3 * PAGES}")
        inflated = vmm.snapshot()[1]
    with (
        page_server(run_dir / "pages.sock", inflated) as server,
        restored(firecracker, run_dir / "fork", inflated, server.path) as fork,
    ):
        fork.console.take("restored")
        fork.set_balloon(2)
        fork.console.take(f"balloon {2 * PAGES}")
        assert walks_on(fork)
        assert server.removed == []
        fork.set_balloon(4)
        fork.console.take(f"balloon {4 * PAGES}")
        server.until_taken(ballast_from(BALLAST, BALLAST_END - 2 * MIB))


def test_a_removed_page_that_is_answered_from_the_file_is_corrupt(
    firecracker: Path, run_dir: Path, laden: Path
) -> None:
    with (
        page_server(run_dir / "pages.sock", laden, forgetful=True) as server,
        restored(firecracker, run_dir / "fork", laden, server.path) as fork,
    ):
        fork.console.take("pass 1")
        fork.set_balloon(2)
        fork.console.take(f"balloon {2 * PAGES}")
        assert walks_on(fork)
        fork.set_balloon(1)
        fork.console.take(f"CORRUPT {first_wrong_byte(BALLAST_END - 2 * MIB):#x}")
        assert fork.console.are_over(SILENCE)
