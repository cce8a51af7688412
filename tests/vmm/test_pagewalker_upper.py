"""pagewalker's upper set in a real Firecracker: memory above 4 GiB, which is a KVM slot of its own."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from supervisor.guests.boot import boot_args
from supervisor.guests.pagewalker import (
    MIB,
    OLD_GAP_BASE,
    PAGE_SIZE,
    UPPER_BASE,
    WORD_MASK,
    pattern,
    upper_writes,
)
from tests.harness.pagewalker_guest import (
    HOT_MIB,
    SEED,
    SILENCE,
    WORD,
    booted,
    extents,
    passes,
    read,
    restored,
    upper_offset,
    with_flipped_byte,
)
from tests.harness.vmm_process import VmmProcess

UPPER_MIB: Final = 2
MEMORY_MIB: Final = OLD_GAP_BASE // MIB + UPPER_MIB


def with_upper_set(
    firecracker: Path, folder: Path, walks: int, upper_mib: int = UPPER_MIB
) -> AbstractContextManager[VmmProcess]:
    """Return a VMM that boots pagewalker with an upper set, walks so often and idles; its dirty pages are tracked."""
    machine = {"vcpu_count": 1, "mem_size_mib": MEMORY_MIB, "track_dirty_pages": True}
    arguments = boot_args(HOT_MIB, walks, SEED, upper_mib=upper_mib)
    return booted(firecracker, folder, arguments, MEMORY_MIB, **{"machine-config": machine})


@dataclass(frozen=True)
class Finished:
    """A snapshot's mem-file, a Diff, and where in it the upper set is."""

    mem_file: Path
    offset: int


@pytest.fixture(scope="module")
def finished(firecracker: Path, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """Return the mem-file of a guest that walked three times and halted."""
    folder = tmp_path_factory.mktemp("upper")
    with with_upper_set(firecracker, folder / "vmm", 3) as vmm:
        assert vmm.console.take("done") == ["ready", *passes(1, 3), "done"]
        return Finished(vmm.snapshot(snapshot_type="Diff")[1], upper_offset(vmm, UPPER_BASE))


def test_the_upper_set_is_at_its_place_and_every_second_walk_writes_to_it(finished: Finished) -> None:
    assert finished.mem_file.stat().st_size == MEMORY_MIB * MIB
    content = read(finished.mem_file, finished.offset, UPPER_MIB * MIB)
    words = [WORD.unpack_from(content, at)[0] for at in range(0, len(content), PAGE_SIZE)]
    pages = range(UPPER_BASE, UPPER_BASE + UPPER_MIB * MIB, PAGE_SIZE)
    assert words == [pattern(SEED, page) + upper_writes(3) & WORD_MASK for page in pages]
    assert upper_writes(3) == 1
    last = [WORD.unpack_from(content, at + PAGE_SIZE - WORD.size)[0] for at in range(0, len(content), PAGE_SIZE)]
    assert last == [pattern(SEED, page) for page in pages]
    below = [end for _, end in extents(finished.mem_file) if end < finished.offset]
    assert max(below) < finished.offset - MIB, "the first slot ends clean"


def test_a_restored_guest_goes_on_with_its_upper_set(firecracker: Path, tmp_path: Path, finished: Finished) -> None:
    with restored(firecracker, tmp_path / "fork", finished.mem_file) as fork:
        assert fork.console.take("done") == ["restored", *passes(1, 3), "done"]


@pytest.mark.parametrize("at", [0, PAGE_SIZE - 3, UPPER_MIB * MIB - 1])
def test_a_wrong_byte_of_the_upper_set_is_named(firecracker: Path, tmp_path: Path, finished: Finished, at: int) -> None:
    wrong = with_flipped_byte(finished.mem_file, tmp_path / "wrong", finished.offset + at)
    with restored(firecracker, tmp_path / "fork", wrong) as fork:
        assert fork.console.next() == "restored"
        assert fork.console.next() == f"CORRUPT {UPPER_BASE + at:#x}"
        assert fork.console.are_over(SILENCE)


@pytest.mark.parametrize("upper_mib", [UPPER_MIB + 1, 1025, WORD_MASK])
def test_an_upper_set_that_memory_has_no_room_for_is_an_error(
    firecracker: Path, tmp_path: Path, upper_mib: int
) -> None:
    with booted(firecracker, tmp_path / "vmm", f"upper_mib={upper_mib}", MEMORY_MIB) as vmm:
        assert vmm.console.next() == f"error: upper_mib={upper_mib} does not fit in memory above 4 GiB"


def test_memory_that_ends_below_the_gap_has_no_upper_set(firecracker: Path, tmp_path: Path) -> None:
    with booted(firecracker, tmp_path / "vmm", "upper_mib=1") as vmm:
        assert vmm.console.next() == "error: upper_mib=1 does not fit in memory above 4 GiB"
