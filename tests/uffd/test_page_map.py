"""The page map: what its writer puts in, its reader finds, folded to any width."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import PageServerError
from supervisor.uffd import page_map
from supervisor.uffd.installer import absent_runs
from supervisor.uffd.page_map import ABSENT, REMOVED, ZERO, PageMapReader
from tests.harness.page_maps import page_map_at

STATES = st.lists(st.integers(ABSENT, REMOVED), min_size=1, max_size=300).map(bytes)


@given(STATES, st.integers(1, 400))
def test_folding_counts_every_page_once_in_its_cell(
    tmp_path_factory: pytest.TempPathFactory, states: bytes, width: int
) -> None:
    path = tmp_path_factory.mktemp("map") / "map"
    writer = page_map_at(path, 4096, len(states))
    writer.pages[:] = states
    with PageMapReader(path) as reader:
        folded = reader.fold(width)
        assert reader.pages() == states
    writer.close()
    assert len(folded) == min(width, len(states))
    sizes = [sum(cell) for cell in folded]
    assert max(sizes) - min(sizes) <= 1
    start = 0
    for cell in folded:
        part = states[start : start + sum(cell)]
        assert tuple(cell) == tuple(part.count(state) for state in range(REMOVED + 1))
        start += len(part)
    assert start == len(states)


@given(STATES, st.integers(0, 50))
def test_absent_runs_are_maximal(states: bytes, start: int) -> None:
    runs = list(absent_runs(states, start))
    covered = [page for first, last in runs for page in range(first, last)]
    assert covered == [start + place for place, state in enumerate(states) if state == ABSENT]
    assert not {last for _, last in runs} & {first for first, _ in runs}


def test_a_million_pages_are_folded(tmp_path: Path) -> None:
    writer = page_map_at(tmp_path / "map", 4096, 1 << 20)
    writer.mark(0, 1 << 19, ZERO)
    with PageMapReader(tmp_path / "map") as reader:
        folded = reader.fold(2000)
    assert sum(cell.zero for cell in folded) == 1 << 19
    writer.close()


def test_counters_are_read_in_their_units(tmp_path: Path) -> None:
    path = tmp_path / "map"
    writer = page_map_at(path, 2 << 20, 8)
    writer.counters[page_map.FAULTS] = 3
    writer.counters[page_map.PREFETCH_NS] = 1_500_000_000
    writer.counters[page_map.FAULT_NS] = 2_000
    writer.counters[page_map.LATENCY + page_map.LATENCY_BUCKETS - 1] = 9
    writer.counters[page_map.OLDEST_UNANSWERED_NS] = time.monotonic_ns() - 5_000_000_000
    writer.mark(2, 5, ZERO)
    assert writer.states(1, 6) == bytes([ABSENT, ZERO, ZERO, ZERO, ABSENT])
    writer.close()
    with PageMapReader(path) as reader:
        counters = reader.counters()
        assert (reader.page_size, reader.page_count) == (2 << 20, 8)
    assert (counters.faults, counters.prefetch_seconds, counters.fault_seconds) == (3, 1.5, 2e-6)
    assert not counters.prefetch_finished
    assert 5 <= counters.oldest_fault_age_seconds < 60
    assert counters.latency_counts == (0,) * (page_map.LATENCY_BUCKETS - 1) + (9,)
    assert len(page_map.LATENCY_BOUNDS_SECONDS) == page_map.LATENCY_BUCKETS
    assert page_map.LATENCY_BOUNDS_SECONDS[:2] == (1e-6, 2e-6)


def test_foreign_and_torn_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "map"
    page_map_at(path, 4096, 100).close()
    whole = path.read_bytes()
    for data, reason in (
        (b"", "has 0 bytes"),
        (whole[:-1], "is torn"),
        (whole + b"\0", "is torn"),
        (b"X" + whole[1:], "is no page map"),
        (whole[:8] + b"\2" + whole[9:], "of version 2"),
        (bytes(len(whole)), "is no page map"),
    ):
        path.write_bytes(data)
        with pytest.raises(PageServerError, match=reason):
            PageMapReader(path)
    with pytest.raises(FileNotFoundError):
        PageMapReader(tmp_path / "none")


def test_a_map_that_there_is_no_room_for_leaves_nothing(tmp_path: Path) -> None:
    room = os.statvfs(tmp_path)
    with pytest.raises(OSError, match=r"No space left|File too large"):
        page_map_at(tmp_path / "map", 4096, room.f_blocks * room.f_frsize * 2)
    assert list(tmp_path.iterdir()) == []
