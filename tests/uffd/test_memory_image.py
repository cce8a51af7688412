"""Layers: their extents, the interval map of a chain, and what becomes of files that change."""

import ctypes
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import PageServerError
from supervisor.uffd.memory_image import (
    GRANULE_BYTES,
    NO_LAYER,
    IntervalMap,
    MemoryImage,
    data_extents,
    identities,
    resolve,
)

PAGE = GRANULE_BYTES
PAGES = 24
LAYER = st.lists(st.booleans(), min_size=PAGES, max_size=PAGES)


def extents_of(layer: list[bool]) -> list[tuple[int, int]]:
    """The maximal data extents, in bytes."""
    extents: list[tuple[int, int]] = []
    for page, has in enumerate(layer):
        if has and extents and extents[-1][1] == page * PAGE:
            extents[-1] = extents[-1][0], (page + 1) * PAGE
        elif has:
            extents.append((page * PAGE, (page + 1) * PAGE))
    return extents


def owners_of_pages(intervals: IntervalMap) -> list[int]:
    """The owner of each page."""
    owners = []
    for start, end, owner in zip(
        intervals.starts, [*intervals.starts[1:], PAGES * PAGE], intervals.owners, strict=True
    ):
        owners += [owner] * ((end - start) // PAGE)
    return owners


@given(st.lists(LAYER, max_size=5))
def test_a_page_comes_from_the_newest_layer_that_has_it(layers: list[list[bool]]) -> None:
    intervals = resolve([extents_of(layer) for layer in layers], PAGES * PAGE)
    expected = [next((number for number, layer in enumerate(layers) if layer[page]), NO_LAYER) for page in range(PAGES)]
    assert owners_of_pages(intervals) == expected
    assert intervals.starts == sorted(set(intervals.starts))
    assert all(left != right for left, right in zip(intervals.owners, intervals.owners[1:], strict=False))


def write_layer(path: Path, layer: list[bool], fill: int, pages: int = PAGES) -> None:
    """A sparse file with data where the layer has any."""
    with path.open("wb") as file:
        file.truncate(pages * PAGE)
        for page, has in enumerate(layer):
            if has:
                os.pwrite(file.fileno(), bytes([fill]) * PAGE, page * PAGE)


def read_image(image: MemoryImage) -> bytes:
    """All bytes, by the addresses that the image gives."""
    found, position = b"", 0
    while position < image.size:
        address, start, end = image.locate(position)
        assert start <= position
        found += ctypes.string_at(address + position, end - position) if address else bytes(end - position)
        position = end
    return found


@given(st.lists(LAYER, min_size=1, max_size=4), st.data())
def test_a_chain_reads_as_the_file_that_merging_it_would_give(
    tmp_path_factory: pytest.TempPathFactory, layers: list[list[bool]], data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("chain")
    merged = bytearray(PAGES * PAGE)
    for number in reversed(range(len(layers))):
        write_layer(folder / f"mem.{number}", layers[number], number + 1)
        for page in (page for page, has in enumerate(layers[number]) if has):
            merged[page * PAGE : (page + 1) * PAGE] = bytes([number + 1]) * PAGE
    image = MemoryImage([folder / f"mem.{number}" for number in range(len(layers))], PAGES * PAGE)
    try:
        assert read_image(image) == merged
        start, end = sorted(data.draw(st.tuples(st.integers(0, PAGES * PAGE), st.integers(0, PAGES * PAGE))))
        target = bytearray(end - start)
        image.read_into(memoryview(target), start)
        assert target == merged[start:end]
        image.verify()
    finally:
        image.close()


def test_extents_are_whole_granules(tmp_path: Path) -> None:
    path = tmp_path / "mem"
    with path.open("wb") as file:
        file.truncate(100 * PAGE)
        os.pwrite(file.fileno(), b"x", 10 * PAGE + 5)
        os.pwrite(file.fileno(), b"x" * (2 * PAGE), 50 * PAGE)
    with path.open("rb") as file:
        found = list(data_extents(file.fileno(), 100 * PAGE))
    assert found == [(10 * PAGE, 11 * PAGE), (50 * PAGE, 52 * PAGE)]


def test_a_full_layer_and_an_empty_one_are_one_interval_each() -> None:
    assert resolve([[(0, 8 * PAGE)]], 8 * PAGE) == IntervalMap([0], [0])
    assert resolve([[]], 8 * PAGE) == IntervalMap([0], [NO_LAYER])


def test_a_chain_with_100_000_extents_is_resolved() -> None:
    size = 4 << 30
    layers = [[(start, start + PAGE) for start in range(offset, size, 10 * 2 * PAGE)] for offset in (0, PAGE, 5 * PAGE)]
    assert sum(map(len, layers)) > 100_000
    intervals = resolve(layers, size)
    assert len(intervals.starts) > 100_000


class CountingOffset(int):
    """An offset that counts how often it is compared."""

    compared = 0

    def __lt__(self, other: int) -> bool:
        self.compared += 1
        return int(self) < other


def test_an_image_is_built_with_two_calls_an_extent_and_looked_up_in_the_logarithm_of_its_intervals(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, extents = 16384, 4096
    write_layer(tmp_path / "newer", [page % 8 == 0 for page in range(pages)], 1, pages)
    write_layer(tmp_path / "older", [page % 8 == 2 for page in range(pages)], 2, pages)
    calls: list[int] = []
    seek = os.lseek

    def counting_seek(fd: int, position: int, whence: int) -> int:
        calls.append(position)
        return seek(fd, position, whence)

    monkeypatch.setattr(os, "lseek", counting_seek)
    image = MemoryImage([tmp_path / "newer", tmp_path / "older"], pages * PAGE)
    try:
        assert len(calls) <= 2 * extents + 2
        for page in (0, 1, 2, 3, 7000, pages - 1):
            offset = CountingOffset(page * PAGE + 1)
            address, start, end = image.locate(offset)
            assert offset.compared <= (2 * extents).bit_length()
            assert start <= offset < end
            assert bool(address) == (page % 8 in (0, 2))
    finally:
        image.close()


def test_layers_that_are_not_what_they_were_are_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "mem"
    full = [True] * PAGES

    def opened() -> MemoryImage:
        write_layer(path, full, 1)
        return MemoryImage([path], PAGES * PAGE)

    image = opened()
    os.truncate(path, 5)
    with pytest.raises(PageServerError, match="was truncated to 5 bytes"):
        image.verify()
    image.close()
    with pytest.raises(PageServerError, match="has 5 bytes and the memory"):
        MemoryImage([path], PAGES * PAGE)

    image = opened()
    os.utime(path, ns=(0, 0))
    with pytest.raises(PageServerError, match="was written"):
        image.verify()
    image.close()

    image = opened()
    write_layer(tmp_path / "other", full, 2)
    (tmp_path / "other").rename(path)
    with pytest.raises(PageServerError, match="was replaced by another file"):
        image.verify(identities([path]))
    assert read_image(image) == b"\1" * PAGES * PAGE
    path.unlink()
    with pytest.raises(PageServerError, match="is missing"):
        image.verify(identities([path]))
    image.close()

    with pytest.raises(PageServerError, match="cannot be opened"):
        MemoryImage([path], PAGES * PAGE)
    path.mkdir()
    with pytest.raises(PageServerError, match="cannot be opened: it is a directory, and no file"):
        MemoryImage([path], PAGES * PAGE)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(PageServerError, match="cannot be opened: it is a FIFO, and no file"):
        MemoryImage([path], PAGES * PAGE)


def test_a_hard_link_is_the_same_layer(tmp_path: Path) -> None:
    write_layer(tmp_path / "mem", [True] * PAGES, 1)
    first = MemoryImage([tmp_path / "mem"], PAGES * PAGE)
    (tmp_path / "link").hardlink_to(tmp_path / "mem")
    second = MemoryImage([tmp_path / "link"], PAGES * PAGE)
    assert first.identity == second.identity
    first.verify()
    first.close()
    second.close()
