"""Copies of sparse files: their bytes and their holes, or nothing."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.models.base import MIB
from supervisor.system import sparse_files

BLOCK = 4096
Extents = dict[int, bytes]
# A run of data ends at a block's end: what is lost there is seen only where its last byte is not zero.
whole_blocks = st.integers(1, 3).map(lambda count: b"\xff" * count * BLOCK)
extents = st.dictionaries(st.integers(0, 300), st.binary(min_size=1, max_size=3 * BLOCK) | whole_blocks, max_size=8)


def uncounted(length: int) -> None:
    """Hear of what is copied, and let it go on."""


@pytest.mark.parametrize("within_the_kernel", [True, False])
@settings(max_examples=30)
@given(written=extents, size=st.integers(0, 320 * BLOCK))
def test_a_sparse_copy_has_the_bytes_and_the_holes(
    tmp_path_factory: pytest.TempPathFactory, within_the_kernel: bool, written: Extents, size: int
) -> None:
    directory = tmp_path_factory.mktemp("sparse")
    source, target = directory / "source", directory / "target"
    with source.open("wb") as file:
        for block, data in written.items():
            file.seek(block * BLOCK)
            file.write(data)
        file.truncate(size)
        os.fsync(file.fileno())
    with pytest.MonkeyPatch.context() as patch:
        if not within_the_kernel:
            patch.setattr(os, "copy_file_range", refuse_to_copy)
        sparse_files.sparse_copy(source, target, uncounted)
    assert target.read_bytes() == source.read_bytes()
    assert data_bytes(target) <= data_bytes(source)


@given(blocks=st.sets(st.integers(0, 40), max_size=12))
def test_extents_are_the_runs_of_blocks_that_were_written(
    tmp_path_factory: pytest.TempPathFactory, blocks: set[int]
) -> None:
    path, size = tmp_path_factory.mktemp("sparse") / "file", 48 * BLOCK
    with path.open("w+b") as file:
        file.truncate(size)
        for block in blocks:
            os.pwrite(file.fileno(), b"\xff" * BLOCK, block * BLOCK)
        os.fsync(file.fileno())
        found = list(sparse_files.extents(file.fileno(), size))
    assert {block for start, end in found for block in range(start // BLOCK, end // BLOCK)} == blocks
    assert all(start % BLOCK == end % BLOCK == 0 for start, end in found)
    assert all(end < start for (_, end), (start, _) in pairwise(found)), "one run is one extent"
    # ext4 puts the list of more than four extents into a block of its own.
    assert sparse_files.allocated(path.stat()) - len(blocks) * BLOCK in (0, BLOCK)


def data_bytes(path: Path) -> int:
    """Return how many bytes of a file are not in holes."""
    with path.open("rb") as file:
        end = total = 0
        while True:
            try:
                start = os.lseek(file.fileno(), end, os.SEEK_DATA)
            except OSError:
                return total
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            total += end - start


def refuse_to_copy(*_: object, **__: object) -> int:
    """What copy_file_range(2) does between different file systems."""
    raise OSError(18, "Invalid cross-device link")


def test_a_disk_of_a_terabyte_of_holes_is_copied_at_once(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    with source.open("wb") as file:
        file.truncate(1 << 40)
        file.seek(1 << 39)
        file.write(b"middle")
    sparse_files.sparse_copy(source, target, uncounted)
    assert target.stat().st_size == 1 << 40
    assert target.stat().st_blocks * 512 < MIB
    with target.open("rb") as file:
        file.seek(1 << 39)
        assert file.read(6) == b"middle"


def test_a_copy_that_fails_leaves_nothing_and_replaces_nothing(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("data")
    target.write_text("precious")
    with pytest.raises(FileExistsError):
        sparse_files.sparse_copy(source, target, uncounted)
    assert target.read_text() == "precious"
    with pytest.raises(FileNotFoundError):
        sparse_files.sparse_copy(tmp_path / "gone", tmp_path / "new", uncounted)
    assert not (tmp_path / "new").exists()
