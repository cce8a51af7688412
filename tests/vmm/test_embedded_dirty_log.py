"""The dirty log over real memory and real sparse files: layers merged are the memory, and hold no page too many."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.embedded.dirty_log import DISCARDED, WRITTEN, DirtyLog
from supervisor.embedded.memory import GuestMemory
from supervisor.guests.pagewalker import MIB, PAGE_SIZE
from supervisor.uffd.memory_image import data_extents

PAGES = MIB // PAGE_SIZE


@contextmanager
def layer() -> Iterator[int]:
    """An empty file that may be sparse."""
    fd = os.memfd_create("layer")
    try:
        yield fd
    finally:
        os.close(fd)


def merge(memory: bytearray, fd: int) -> set[int]:
    """Put a layer over the memory below it; returns the pages that it has."""
    pages: set[int] = set()
    for start, end in data_extents(fd, len(memory)):
        memory[start:end] = os.pread(fd, end - start, start)
        pages.update(range(start // PAGE_SIZE, end // PAGE_SIZE))
    return pages


def tracked(memory: GuestMemory, has_base: bool) -> DirtyLog:
    memory.dirty_log = DirtyLog(memory.size // PAGE_SIZE, has_base)
    return memory.dirty_log


ranges = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 24)).map(lambda it: (it[0], min(sum(it), PAGES)))
changes = st.lists(st.tuples(st.sampled_from(["write", "write", "discard", "read"]), ranges), max_size=6)


Changes = list[tuple[str, tuple[int, int]]]


@settings(max_examples=60)
@given(st.lists(changes, min_size=1, max_size=4), st.booleans())
def test_merged_layers_are_the_memory(
    tmp_path_factory: pytest.TempPathFactory, diffs: list[Changes], from_file: bool
) -> None:
    base = bytes(range(1, 256)) * (MIB // 255 + 1) if from_file else bytes(MIB)
    merged = bytearray(base[:MIB])
    if from_file:
        path = tmp_path_factory.getbasetemp() / "base"
        path.write_bytes(merged)
        memory = GuestMemory.from_file(str(path), MIB)
    else:
        memory = GuestMemory.anonymous(MIB)
    log = tracked(memory, has_base=from_file)
    for number, diff in enumerate(diffs, 1):
        touched: set[int] = set()
        for kind, (start, end) in diff:
            address, length = start * PAGE_SIZE, (end - start) * PAGE_SIZE
            if kind == "write":
                memory.write(address, bytes([number]) * length)
            elif kind == "discard":
                memory.discard(address, length)
                assert memory.read(address, length) == bytes(length)
            else:
                memory.read(address, length)
                continue
            touched.update(range(start, end))
        with layer() as fd:
            memory.dump_dirty(fd, log)
            assert os.fstat(fd).st_size == MIB
            pages = merge(merged, fd)
        log.reset()
        assert merged == memory.read(0, MIB)
        assert pages == touched if from_file or number > 1 else pages <= touched
    if from_file:
        assert path.read_bytes() == base[:MIB]


def test_a_write_makes_every_page_that_it_touches_dirty() -> None:
    log = DirtyLog(PAGES, has_base=True)
    log.write(5 * PAGE_SIZE - 1, 2)
    log.write(9 * PAGE_SIZE, PAGE_SIZE)
    log.write((PAGES - 1) * PAGE_SIZE + 8, 8)
    assert list(log.runs()) == [
        (4 * PAGE_SIZE, 6 * PAGE_SIZE, WRITTEN),
        (9 * PAGE_SIZE, 10 * PAGE_SIZE, WRITTEN),
        ((PAGES - 1) * PAGE_SIZE, MIB, WRITTEN),
    ]
    log.discard(5 * PAGE_SIZE, PAGE_SIZE)
    assert list(log.runs())[:2] == [
        (4 * PAGE_SIZE, 5 * PAGE_SIZE, WRITTEN),
        (5 * PAGE_SIZE, 6 * PAGE_SIZE, DISCARDED),
    ]
    log.reset()
    assert list(log.runs()) == []


def test_pages_given_back_before_the_first_snapshot_are_no_data() -> None:
    memory = GuestMemory.anonymous(MIB)
    log = tracked(memory, has_base=False)
    memory.write(0, bytes(8 * PAGE_SIZE))
    memory.discard(4 * PAGE_SIZE, 4 * PAGE_SIZE)
    with layer() as fd:
        memory.dump_dirty(fd, log)
        assert list(data_extents(fd, MIB)) == [(0, 4 * PAGE_SIZE)]
