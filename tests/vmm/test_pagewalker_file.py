"""pagewalker's file and its command line: what its source builds, and what it is told."""

import shutil
import struct
from pathlib import Path

import pytest

from supervisor.errors import BadRequestError, DependencyMissingError, InvalidSizeError
from supervisor.guests import build as build_module
from supervisor.guests.boot import boot_args, first_init_path, kernel_path
from supervisor.guests.build import build
from supervisor.guests.pagewalker import (
    DEFAULT_BALLAST_MIB,
    DEFAULT_HOT_MIB,
    DEFAULT_PASSES,
    DEFAULT_SEED,
    DEFAULT_UPPER_MIB,
    KERNEL_BASE,
    MAX_HOT_MIB,
    MAX_UPPER_MIB,
    MIB,
    PAGE_SIZE,
    SCRATCH_BASE,
    WORD_MASK,
    ballast_end,
    minimum_memory,
)
from tests.harness.pagewalker_guest import MEMORY_MIB


def test_the_shipped_elf_is_what_its_source_builds(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc")
    build(tmp_path / "pagewalker.elf")
    assert (tmp_path / "pagewalker.elf").read_bytes() == kernel_path().read_bytes()


def test_the_shipped_first_init_is_what_its_source_builds(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc")
    build(tmp_path / "first_init.elf", "first_init.s")
    assert (tmp_path / "first_init.elf").read_bytes() == first_init_path().read_bytes()
    assert first_init_path().stat().st_size < PAGE_SIZE


def test_the_elf_is_a_static_x86_64_program_of_a_few_kib_at_kernel_base() -> None:
    elf = kernel_path().read_bytes()
    assert len(elf) < 2 * PAGE_SIZE
    assert elf[:6] == b"\x7fELF\x02\x01"
    kind, machine, _, entry = struct.unpack_from("<HHIQ", elf, 16)
    assert (kind, machine) == (2, 62)
    segment, _, offset, virtual, physical, file_size, memory_size = struct.unpack_from("<IIQQQQQ", elf, 64)
    assert (segment, offset, virtual, physical, file_size) == (1, 0, KERNEL_BASE, KERNEL_BASE, len(elf))
    assert KERNEL_BASE < entry < KERNEL_BASE + file_size < KERNEL_BASE + memory_size <= SCRATCH_BASE


@pytest.mark.parametrize(("command", "reason"), [(("no-such-gcc",), "gcc is not in PATH"), (("false",), "exit code 1")])
def test_a_build_that_cannot_be_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...], reason: str
) -> None:
    monkeypatch.setattr(build_module, "GCC", command)
    with pytest.raises(DependencyMissingError, match=reason):
        build(tmp_path / "pagewalker.elf")
    assert not (tmp_path / "pagewalker.elf").exists()


def test_boot_args_name_what_pagewalker_reads() -> None:
    defaults = f"hot_mib={DEFAULT_HOT_MIB} passes={DEFAULT_PASSES} seed={DEFAULT_SEED}"
    assert boot_args() == f"{defaults} ballast_mib={DEFAULT_BALLAST_MIB} upper_mib={DEFAULT_UPPER_MIB}"
    most = boot_args(hot_mib=900, passes=0, seed=WORD_MASK, ballast_mib=MAX_HOT_MIB - 900, upper_mib=MAX_UPPER_MIB)
    assert most == f"hot_mib=900 passes=0 seed={WORD_MASK} ballast_mib=92 upper_mib=1024"


@pytest.mark.parametrize("hot_mib", [-1, 0, MAX_HOT_MIB + 1])
def test_boot_args_refuse_a_hot_set_that_is_not_mapped(hot_mib: int) -> None:
    with pytest.raises(InvalidSizeError, match=f"hot_mib={hot_mib}: it has to be 1 to 992"):
        boot_args(hot_mib=hot_mib)


@pytest.mark.parametrize("ballast_mib", [-1, MAX_HOT_MIB - DEFAULT_HOT_MIB + 1])
def test_boot_args_refuse_ballast_that_is_not_mapped(ballast_mib: int) -> None:
    with pytest.raises(InvalidSizeError, match=f"ballast_mib={ballast_mib} beside hot_mib=16: it has to be 0 to 976"):
        boot_args(ballast_mib=ballast_mib)


@pytest.mark.parametrize("upper_mib", [-1, MAX_UPPER_MIB + 1])
def test_boot_args_refuse_an_upper_set_that_is_not_mapped(upper_mib: int) -> None:
    with pytest.raises(InvalidSizeError, match=f"upper_mib={upper_mib}: it has to be 0 to 1024"):
        boot_args(upper_mib=upper_mib)


def test_ballast_ends_with_the_memory_or_with_what_is_mapped_of_it() -> None:
    assert ballast_end(MEMORY_MIB * MIB) == MEMORY_MIB * MIB == minimum_memory(hot_mib=3, ballast_mib=29)
    assert ballast_end(2048 * MIB) == 1024 * MIB


@pytest.mark.parametrize("value", [-1, WORD_MASK + 1])
@pytest.mark.parametrize("name", ["passes", "seed"])
def test_boot_args_refuse_what_is_not_64_bits(name: str, value: int) -> None:
    with pytest.raises(BadRequestError, match=f"{name}={value}: it has to be 0 to {WORD_MASK}"):
        boot_args(**{name: value})
