"""Hot-page lists: the bounds of a recording, and a file format that trusts nothing."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.uffd import hot_pages
from supervisor.uffd.hot_pages import CountedRun, HotPages, Recording
from supervisor.uffd.memory_image import LayerIdentity
from tests.uffd.test_merging import RECORDINGS, recorded

PAGES = 1000
WORD = st.integers(0, (1 << 64) - 1)
IDENTITY = st.builds(LayerIdentity, WORD, st.integers(-(1 << 63), (1 << 63) - 1), WORD, WORD)
IDENTITIES = st.lists(IDENTITY, max_size=4).map(tuple)
SAMPLE = HotPages((LayerIdentity(1, 2, 3, 4),), 4096, (CountedRun(5, 9, 2), CountedRun(1, 2, 1)), 2, 40, 30)
REFUSED = r"header|first bytes|version|has \d+ bytes|checksum"


HOT = st.builds(
    lambda identity, page_size, recordings, samples: recorded(*recordings)._replace(
        identity=identity, page_size=page_size, held_back=max(samples), touched=min(samples)
    ),
    *(IDENTITIES, st.sampled_from((4096, 2 << 20)), RECORDINGS, st.tuples(WORD, WORD)),
)


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


def test_a_recording_is_cut_off_before_any_of_its_bounds_could_have_ended_it() -> None:
    recording = Recording(longest_ns=1000, quiet_ns=100, most_pages=5)
    recording.touch([1], 50)
    assert recording.cut_off(149)
    assert not recording.cut_off(150)
    recording.touch([2, 3, 4, 5], 60)
    assert not recording.cut_off(60), "it is full"
    longest = Recording(longest_ns=100, quiet_ns=1000, most_pages=5)
    longest.touch([1], 50)
    assert longest.cut_off(149)
    assert not longest.cut_off(150)


@given(HOT)
def test_a_list_comes_back_as_it_was_saved(hot: HotPages) -> None:
    assert hot_pages.unpack(hot_pages.pack(hot)) == hot


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_cleanly(data: bytes) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        hot_pages.unpack(data)


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
        ({"identity": (LayerIdentity(9, 2, 3, 4),)}, "another memory image"),
        ({"identity": (LayerIdentity(1, 10**12, 3, 4),)}, "another memory image"),
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
    with pytest.raises(OSError, match="it is a directory, and no file"):
        hot_pages.read(path, 1, PAGES)
    path.rmdir()
    os.mkfifo(path)
    with pytest.raises(OSError, match="it is a FIFO, and no file"):
        hot_pages.read(path, 1, PAGES)
