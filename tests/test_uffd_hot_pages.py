"""Hot-page lists: coalescing, the bounds of a recording, and a file format that trusts nothing."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.errors import PageServerError
from supervisor.uffd import hot_pages
from supervisor.uffd.hot_pages import HotPages, Recording, Run, coalesce
from supervisor.uffd.memory_image import LayerIdentity

PAGES = 1000
WORD = st.integers(0, (1 << 64) - 1)
IDENTITY = st.builds(LayerIdentity, WORD, st.integers(-(1 << 63), (1 << 63) - 1), WORD, WORD)
TOUCHED = st.lists(st.integers(0, PAGES - 1), max_size=200)
HOT = st.builds(
    HotPages, st.lists(IDENTITY, max_size=4).map(tuple), st.sampled_from((4096, 2 << 20)), TOUCHED.map(coalesce)
)
SAMPLE = HotPages((LayerIdentity(1, 2, 3, 4),), 4096, (Run(5, 9), Run(1, 2)))


@settings(deadline=None)
@given(TOUCHED)
def test_runs_cover_the_touched_pages_once_and_in_the_order_of_their_first_touch(touched: list[int]) -> None:
    runs = coalesce(touched)
    pages = [page for run in runs for page in range(run.start, run.end)]
    assert sorted(pages) == sorted(set(touched))
    ends = {run.end for run in runs}
    assert not ends & {run.start for run in runs}, "two runs that touch are one"
    first_touches = [min(touched.index(page) for page in range(run.start, run.end)) for run in runs]
    assert first_touches == sorted(first_touches)


def test_coalescing_keeps_what_came_first_first() -> None:
    assert coalesce([7, 100, 8, 101, 6, 7]) == (Run(6, 9), Run(100, 102))
    assert coalesce([]) == ()


def test_a_recording_ends_when_it_is_quiet_or_long_or_full() -> None:
    recording = Recording(longest_ns=1000, quiet_ns=100, most_pages=5)
    assert recording.ends_at_ns() is None
    recording.touch([1], 50)
    assert recording.ends_at_ns() == 150
    recording.touch([2, 3], 990)
    assert recording.ends_at_ns() == 1050
    recording.touch([4, 5, 6, 7], 1000)
    assert recording.full
    assert recording.ends_at_ns() == 1000
    assert recording.touched == [1, 2, 3, 4, 5]


@settings(deadline=None)
@given(HOT)
def test_a_list_comes_back_as_it_was_saved(hot: HotPages) -> None:
    assert hot_pages.unpack(hot_pages.pack(hot)) == hot


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes_are_refused_cleanly(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"header|first bytes|version|has \d+ bytes|checksum"):
        hot_pages.unpack(data)


@settings(deadline=None)
@given(st.data(), HOT)
def test_any_damage_is_noticed(data: st.DataObject, hot: HotPages) -> None:
    packed = hot_pages.pack(hot)
    position = data.draw(st.integers(0, len(packed) - 1))
    damaged = bytearray(packed)
    damaged[position] ^= data.draw(st.integers(1, 255))
    for wrong in (bytes(damaged), packed[:position], packed + b"\0"):
        with pytest.raises(ValueError, match=r"header|first bytes|version|has \d+ bytes|checksum"):
            hot_pages.unpack(wrong)


def test_saving_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "hot_pages"
    assert hot_pages.load(path, SAMPLE.identity, 4096, PAGES) is None
    hot_pages.save(path, SAMPLE._replace(runs=()))
    hot_pages.save(path, SAMPLE)
    assert hot_pages.load(path, SAMPLE.identity, 4096, PAGES) == SAMPLE
    assert SAMPLE.page_count == 5
    with pytest.raises(OSError, match="directory"):
        hot_pages.save(tmp_path, SAMPLE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["hot_pages"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"identity": (LayerIdentity(1, 2, 3, 5),)}, "another memory image"),
        ({"identity": SAMPLE.identity * 2}, "another memory image"),
        ({"page_size": 2 << 20}, "its pages are of 2097152 bytes"),
        ({"runs": (Run(5, PAGES + 1),)}, "leaves the image"),
        ({"runs": (Run(5, 9), Run(8, 10))}, "overlaps another"),
        ({"runs": (Run(5, 5),)}, "is empty"),
        ({"runs": (Run(9, 5),)}, "is empty"),
    ],
)
def test_a_list_that_does_not_fit_its_image_is_refused(tmp_path: Path, change: dict[str, object], reason: str) -> None:
    path = tmp_path / "hot_pages"
    hot_pages.save(path, SAMPLE._replace(**change))  # type: ignore[arg-type]
    with pytest.raises(PageServerError, match=reason):
        hot_pages.load(path, SAMPLE.identity, 4096, PAGES)


def test_a_file_that_is_no_list_is_refused_and_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "hot_pages"
    path.write_bytes(b"")
    with pytest.raises(PageServerError, match="shorter than its header"):
        hot_pages.load(path, SAMPLE.identity, 4096, PAGES)
    os.truncate(path, 1 << 40)
    with pytest.raises(PageServerError, match="is refused"):
        hot_pages.load(path, SAMPLE.identity, 4096, PAGES)
    path.unlink()
    path.mkdir()
    with pytest.raises(PageServerError, match="cannot be read: Is a directory"):
        hot_pages.load(path, SAMPLE.identity, 4096, PAGES)
