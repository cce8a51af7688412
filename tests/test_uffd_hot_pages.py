"""Hot-page lists: recordings and what is made of several, and a file format that trusts nothing."""

import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from supervisor.errors import PageServerError
from supervisor.uffd import hot_pages
from supervisor.uffd.hot_pages import CountedRun, HotPages, Recording, Run, coalesce, merged, pages_in
from supervisor.uffd.memory_image import LayerIdentity

PAGES = 1000
MOST = 1 << 20
WORD = st.integers(0, (1 << 64) - 1)
IDENTITY = st.builds(LayerIdentity, WORD, st.integers(-(1 << 63), (1 << 63) - 1), WORD, WORD)
IDENTITIES = st.lists(IDENTITY, max_size=4).map(tuple)
TOUCHED = st.lists(st.integers(0, PAGES - 1), max_size=200)
RECORDINGS = st.lists(TOUCHED, max_size=4)
SAMPLE = HotPages((LayerIdentity(1, 2, 3, 4),), 4096, (CountedRun(5, 9, 2), CountedRun(1, 2, 1)), 2, 40, 30)
REFUSED = r"header|first bytes|version|has \d+ bytes|checksum"


def recorded(*recordings: list[int], most: int = MOST) -> HotPages:
    """The list that these recordings make."""
    hot = HotPages(SAMPLE.identity, 4096)
    for touched in recordings:
        hot = merged(hot, touched, most)
    return hot


def counts_of(hot: HotPages) -> dict[int, int]:
    """In how many recordings each page is, in the list's order."""
    return {page: run.recordings for run in hot.runs for page in range(run.start, run.end)}


HOT = st.builds(
    lambda identity, page_size, recordings, samples: recorded(*recordings)._replace(
        identity=identity, page_size=page_size, held_back=max(samples), touched=min(samples)
    ),
    *(IDENTITIES, st.sampled_from((4096, 2 << 20)), RECORDINGS, st.tuples(WORD, WORD)),
)


@settings(deadline=None)
@given(TOUCHED)
def test_runs_cover_the_touched_pages_once_and_in_the_order_of_their_first_touch(touched: list[int]) -> None:
    runs = recorded(touched).wanted(1.0)
    pages = [page for run in runs for page in range(run.start, run.end)]
    assert sorted(pages) == sorted(set(touched))
    assert pages_in(runs) == len(pages)
    ends = {run.end for run in runs}
    assert not ends & {run.start for run in runs}, "two runs that touch are one"
    first_touches = [min(touched.index(page) for page in range(run.start, run.end)) for run in runs]
    assert first_touches == sorted(first_touches)


def test_coalescing_keeps_what_came_first_first_and_counts_apart() -> None:
    assert coalesce(dict.fromkeys([7, 100, 8, 101, 6], 1)) == (CountedRun(6, 9, 1), CountedRun(100, 102, 1))
    assert coalesce({4: 1, 2: 2, 3: 1, 1: 2}) == (CountedRun(3, 5, 1), CountedRun(1, 3, 2))
    assert coalesce({}) == ()


@settings(deadline=None)
@given(RECORDINGS)
def test_every_page_has_the_count_of_the_recordings_that_touched_it(recordings: list[list[int]]) -> None:
    hot = recorded(*recordings)
    assert hot.recordings == len(recordings)
    pages = {page for touched in recordings for page in touched}
    assert counts_of(hot) == {page: sum(page in touched for touched in recordings) for page in pages}
    assert hot_pages.mismatch(hot, hot.identity, 4096, PAGES) is None
    for share in (0.0, 0.25, 0.5, 1.0):
        wanted = {page for run in hot.wanted(share) for page in range(run.start, run.end)}
        assert wanted == {page for page in pages if counts_of(hot)[page] >= share * len(recordings)}


def test_an_older_recording_comes_first_and_the_runs_wanted_ignore_counts() -> None:
    hot = recorded([50, 51, 10], [11, 50, 12, 10])
    assert hot.runs == (CountedRun(50, 51, 2), CountedRun(51, 52, 1), CountedRun(10, 11, 2), CountedRun(11, 13, 1))
    assert hot.wanted(0.5) == (Run(50, 52), Run(10, 13))
    assert hot.wanted(0.6) == (Run(50, 51), Run(10, 11))


def test_of_too_many_pages_the_least_touched_go_and_of_those_the_last() -> None:
    hot = recorded([1, 3, 5], [5, 7, 9], most=4)
    assert counts_of(hot) == {1: 1, 3: 1, 5: 2, 7: 1}


def test_a_new_recording_forgets_what_was_said_of_the_old_list() -> None:
    hot = merged(SAMPLE, [5], MOST)
    assert (hot.recordings, hot.held_back, hot.touched) == (3, 0, 0)
    assert hot.runs == (CountedRun(5, 6, 3), CountedRun(6, 9, 2), CountedRun(1, 2, 1))


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
    with pytest.raises(ValueError, match=REFUSED):
        hot_pages.unpack(data)


@settings(deadline=None)
@given(st.data(), HOT)
def test_any_damage_is_noticed(data: st.DataObject, hot: HotPages) -> None:
    packed = hot_pages.pack(hot)
    position = data.draw(st.integers(0, len(packed) - 1))
    damaged = bytearray(packed)
    damaged[position] ^= data.draw(st.integers(1, 255))
    for wrong in (bytes(damaged), packed[:position], packed + b"\0"):
        with pytest.raises(ValueError, match=REFUSED):
            hot_pages.unpack(wrong)


def test_a_list_of_the_first_version_is_refused_by_its_version() -> None:
    with pytest.raises(ValueError, match="it has version 1, and only version 2 can be read"):
        hot_pages.unpack(hot_pages.pack(SAMPLE).replace(b"FTHOTPG\0\2", b"FTHOTPG\0\1"))


def test_saving_replaces_and_leaves_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "hot_pages"
    assert hot_pages.read(path, 1, PAGES) is None
    hot_pages.save(path, SAMPLE._replace(runs=()))
    hot_pages.save(path, SAMPLE)
    assert hot_pages.read(path, 1, PAGES) == hot_pages.pack(SAMPLE)
    with pytest.raises(OSError, match="directory"):
        hot_pages.save(tmp_path, SAMPLE)
    assert [entry.name for entry in tmp_path.iterdir()] == ["hot_pages"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"identity": (LayerIdentity(1, 2, 3, 5),)}, "another memory image"),
        ({"identity": SAMPLE.identity * 2}, "another memory image"),
        ({"page_size": 2 << 20}, "its pages are of 2097152 bytes"),
        ({"runs": (CountedRun(5, PAGES + 1, 1),)}, "leaves the image"),
        ({"runs": (CountedRun(5, 9, 1), CountedRun(8, 10, 1))}, "overlaps another"),
        ({"runs": (CountedRun(5, 5, 1),)}, "is empty"),
        ({"runs": (CountedRun(9, 5, 1),)}, "is empty"),
        ({"runs": (CountedRun(5, 9, 3),)}, "is of 3 of 2 recordings"),
        ({"runs": (CountedRun(5, 9, 0),)}, "is of 0 of 2 recordings"),
        ({"touched": 41}, "of 40 pages that were held back 41 were touched"),
    ],
)
def test_a_list_that_does_not_fit_its_image_or_itself_is_refused(change: dict[str, object], reason: str) -> None:
    hot = SAMPLE._replace(**change)  # type: ignore[arg-type]
    assert reason in (hot_pages.mismatch(hot, SAMPLE.identity, 4096, PAGES) or "")
    assert hot_pages.mismatch(SAMPLE, SAMPLE.identity, 4096, PAGES) is None


def test_a_file_too_long_for_its_image_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "hot_pages"
    path.write_bytes(b"")
    os.truncate(path, 1 << 40)
    data = hot_pages.read(path, 1, PAGES)
    assert data is not None
    assert len(data) < 20 * PAGES
    path.unlink()
    path.mkdir()
    with pytest.raises(PageServerError, match="cannot be read: Is a directory"):
        hot_pages.read(path, 1, PAGES)
