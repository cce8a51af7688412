"""pagewalker in a real Firecracker: what it walks, prints and finds."""

from pathlib import Path
from typing import Final

import pytest

from supervisor.guests.boot import boot_args
from supervisor.guests.pagewalker import (
    DEFAULT_HOT_MIB,
    DEFAULT_PASSES,
    DEFAULT_SEED,
    HOT_BASE,
    MIB,
    PAGE_SIZE,
    SCRATCH_BASE,
    SCRATCH_PAGES,
    WORD_MASK,
    minimum_memory,
    pattern,
)
from tests.harness.pagewalker_guest import (
    HOT_MIB,
    SEED,
    SILENCE,
    WORD,
    booted,
    hot_set,
    passes,
    read,
    restored,
    with_flipped_byte,
)


def walks(mem_file: Path, seed: int) -> set[int]:
    """Return by how much the scratch words are above their pattern: one number where the scratch set is consistent."""
    addresses = range(SCRATCH_BASE, SCRATCH_BASE + SCRATCH_PAGES * PAGE_SIZE, PAGE_SIZE)
    words = (WORD.unpack(read(mem_file, address, WORD.size))[0] - pattern(seed, address) for address in addresses)
    return {word & WORD_MASK for word in words}


PASSES: Final = 3


@pytest.fixture(scope="module")
def finished(firecracker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the mem-file of a guest that walked PASSES times, printed what it has to, and halted."""
    folder = tmp_path_factory.mktemp("finished")
    with booted(firecracker, folder / "vmm", boot_args(HOT_MIB, PASSES, SEED)) as vmm:
        assert vmm.console.take("done") == ["ready", *passes(1, PASSES), "done"]
        mem_file = vmm.snapshot()[1]
        vmm.resume()
        assert vmm.console.are_over(SILENCE)
    return mem_file


@pytest.fixture(scope="module")
def walking(firecracker: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the mem-file of a guest that was paused somewhere in an endless walk."""
    folder = tmp_path_factory.mktemp("walking")
    with booted(firecracker, folder / "vmm", boot_args(HOT_MIB, passes=0, seed=SEED)) as vmm:
        vmm.console.take("pass 2")
        return vmm.snapshot()[1]


def test_the_hot_set_is_at_its_place_and_ends_where_it_should(finished: Path) -> None:
    assert read(finished, HOT_BASE, HOT_MIB * MIB) == hot_set(HOT_MIB, SEED)
    assert read(finished, minimum_memory(HOT_MIB), PAGE_SIZE) == bytes(PAGE_SIZE)
    assert read(finished, HOT_BASE - PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_the_scratch_set_counts_the_walks(finished: Path) -> None:
    assert walks(finished, SEED) == {PASSES}
    assert read(finished, SCRATCH_BASE + WORD.size, PAGE_SIZE - WORD.size) == bytes(PAGE_SIZE - WORD.size)
    assert read(finished, SCRATCH_BASE + SCRATCH_PAGES * PAGE_SIZE, PAGE_SIZE) == bytes(PAGE_SIZE)


def test_the_defaults_hold_and_foreign_words_are_ignored(firecracker: Path, tmp_path: Path) -> None:
    arguments = "root=/dev/vda  panic=1 xhot_mib=2 seed hot_mib_=3 -- passes:4"
    with booted(firecracker, tmp_path / "vmm", arguments) as vmm:
        assert vmm.console.take("done") == ["ready", *passes(1, DEFAULT_PASSES), "done"]
        mem_file = vmm.snapshot()[1]
    assert read(mem_file, HOT_BASE, DEFAULT_HOT_MIB * MIB) == hot_set(DEFAULT_HOT_MIB, DEFAULT_SEED)
    assert read(mem_file, minimum_memory(DEFAULT_HOT_MIB), WORD.size) == bytes(WORD.size)


def test_a_restored_guest_says_so_and_counts_anew(firecracker: Path, tmp_path: Path, walking: Path) -> None:
    with restored(firecracker, tmp_path / "fork", walking) as fork:
        fork.console.take("restored")
        assert fork.console.take("pass 3") == passes(1, 3)
        again = fork.snapshot()[1]
    with restored(firecracker, tmp_path / "fork-of-fork", again) as fork:
        fork.console.take("restored")
        assert fork.console.next() == "pass 1"


def test_a_paused_guest_that_goes_on_was_not_restored(firecracker: Path, tmp_path: Path) -> None:
    with booted(firecracker, tmp_path / "vmm", boot_args(1, passes=0)) as vmm:
        assert vmm.console.take("pass 2") == ["ready", "pass 1", "pass 2"]
        vmm.pause()
        vmm.resume()
        assert vmm.console.take("pass 6") == passes(3, 6)


def test_a_guest_that_was_done_walks_again_where_it_is_restored(
    firecracker: Path, tmp_path: Path, finished: Path
) -> None:
    mem_file = finished
    for generation in range(1, 4):
        with restored(firecracker, tmp_path / f"fork-{generation}", mem_file) as fork:
            assert fork.console.take("done") == ["restored", *passes(1, PASSES), "done"]
            mem_file = fork.snapshot()[1]
        assert walks(mem_file, SEED) == {(1 + generation) * PASSES}


@pytest.mark.parametrize(
    "address",
    [
        pytest.param(HOT_BASE, id="first byte"),
        pytest.param(HOT_BASE + PAGE_SIZE - 3, id="last word of the first page"),
        pytest.param(HOT_BASE + MIB + 7 * PAGE_SIZE + 5, id="in the middle"),
        pytest.param(HOT_BASE + HOT_MIB * MIB - 1, id="last byte"),
        pytest.param(SCRATCH_BASE + 9 * PAGE_SIZE + 1, id="scratch"),
    ],
)
def test_a_wrong_byte_stops_the_walk_and_is_named(
    firecracker: Path, tmp_path: Path, finished: Path, address: int
) -> None:
    with restored(firecracker, tmp_path / "fork", with_flipped_byte(finished, tmp_path / "wrong", address)) as fork:
        assert fork.console.next() == "restored"
        assert fork.console.next() == f"CORRUPT {address:#x}"
        assert fork.console.are_over(SILENCE)


def test_a_wrong_byte_is_found_in_the_middle_of_a_walk(firecracker: Path, tmp_path: Path, walking: Path) -> None:
    address = HOT_BASE + 2 * MIB
    with restored(firecracker, tmp_path / "fork", with_flipped_byte(walking, tmp_path / "wrong", address)) as fork:
        fork.console.take(f"CORRUPT {address:#x}")
        assert fork.console.are_over(SILENCE)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("hot_mib=33", "hot_mib=33 and the 32 MiB below it do not fit in memory"),
        ("hot_mib=0", "hot_mib=0 is not 1 to 992"),
        ("hot_mib=993", "hot_mib=993 is not 1 to 992"),
        ("hot_mib=3 ballast_mib=30", "ballast_mib=30 does not fit in memory above the hot set"),
        (f"ballast_mib={WORD_MASK}", f"ballast_mib={WORD_MASK} does not fit in memory above the hot set"),
        ("seed=12x", "seed= is not a decimal number below 2^64"),
        ("passes= seed=1", "passes= is not a decimal number below 2^64"),
        ("seed=18446744073709551616", "seed= is not a decimal number below 2^64"),
        ("seed=184467440737095516150", "seed= is not a decimal number below 2^64"),
    ],
)
def test_a_command_line_that_cannot_be_followed_is_an_error(
    firecracker: Path, tmp_path: Path, arguments: str, reason: str
) -> None:
    with booted(firecracker, tmp_path / "vmm", arguments) as vmm:
        assert vmm.console.next() == f"error: {reason}"
        assert vmm.console.are_over(SILENCE)


def test_all_memory_up_to_its_end_can_be_walked(firecracker: Path, tmp_path: Path) -> None:
    with booted(firecracker, tmp_path / "vmm", boot_args(hot_mib=32, passes=1)) as vmm:
        assert vmm.console.take("done") == ["ready", "pass 1", "done"]
    with booted(firecracker, tmp_path / "ballast", boot_args(hot_mib=3, passes=1, ballast_mib=29)) as vmm:
        assert vmm.console.take("done") == ["ready", "pass 1", "done"]


def test_ballast_ends_at_the_first_gib(firecracker: Path, tmp_path: Path) -> None:
    with booted(firecracker, tmp_path / "vmm", "hot_mib=990 ballast_mib=3", memory_mib=1100) as vmm:
        assert vmm.console.next() == "error: ballast_mib=3 does not fit in memory above the hot set"
