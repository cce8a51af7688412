"""The page server's hot-page list: what it takes from disk, what it keeps there, and what it gives to forks."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from supervisor.uffd import hot_pages
from supervisor.uffd.control import Policy
from supervisor.uffd.handshake import Mapping
from supervisor.uffd.hot_list import HotList
from supervisor.uffd.hot_pages import Run
from supervisor.uffd.hypeman_hot_pages import RegionPage
from supervisor.uffd.memory_image import MemoryImage
from tests.hypeman_hot_pages import hpl1

PAGE = 4096
PAGES = 2048
MAPPINGS = (Mapping(1 << 40, 1024 * PAGE, 0), Mapping(1 << 41, 1024 * PAGE, 1024 * PAGE))


class Place:
    """Where one template's list is, and what was logged."""

    def __init__(self, folder: Path) -> None:
        layer = folder / "mem"
        with layer.open("wb") as file:
            file.truncate(PAGES * PAGE)
        self.image = MemoryImage([layer], PAGES * PAGE)
        self.path = folder / "hot_pages"
        self.logged: list[str] = []

    def load(self, policy: Policy | None = None) -> HotList:
        """The list as a page server that starts now has it."""
        return HotList(self.path, self.image, PAGE, policy or Policy(), self.logged.append)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A template without a list."""
    made = Place(tmp_path)
    yield made
    made.image.close()


def test_recordings_and_samples_are_there_for_the_next_page_server(place: Place) -> None:
    hot = place.load()
    assert (hot.runs, hot.page_count, hot.refused) == ((), 0, "")
    hot.keep_recording([5, 6, 100])
    hot.keep_recording([6, 7])
    hot.keep_sample(10, 9)
    hot.keep_sample(10, 8)
    again = place.load()
    assert again.recorded == hot.recorded
    assert again.runs == hot.runs == (Run(5, 8), Run(100, 101))
    assert (again.recorded.recordings, again.recorded.held_back, again.recorded.touched) == (2, 20, 17)
    assert place.logged == []


def test_what_few_recordings_touched_is_not_prefetched(place: Place) -> None:
    hot = place.load(Policy(prefetch_share=0.5))
    for touched in ([1, 2, 3], [1, 2], [1, 50]):
        hot.keep_recording(touched)
    assert hot.runs == (Run(1, 3),)
    assert place.load(Policy(prefetch_share=0.0)).runs == (Run(1, 4), Run(50, 51))


def test_every_so_manieth_fork_has_a_sample_held_back(place: Place) -> None:
    hot = place.load(Policy(sample_every=3))
    hot.keep_recording(list(range(1000)))
    plans = [hot.plan(f"fork{number}", MAPPINGS) for number in range(9)]
    assert [len(plan.held_back) for plan in plans] == [0, 0, 3] * 3
    assert all(plan.runs == (Run(0, 1000),) for plan in plans if not plan.held_back)
    assert len({plan.held_back for plan in plans}) == 4
    never = place.load(Policy(sample_every=0))
    assert not any(never.plan(f"fork{number}", MAPPINGS).held_back for number in range(20))


def test_hypemans_list_is_taken_in_with_the_first_handshake(place: Place) -> None:
    place.path.write_bytes(hpl1([RegionPage(0, 8 * PAGE), RegionPage(0, 9 * PAGE), RegionPage(1, 0)]))
    hot = place.load()
    assert hot.runs == ()
    assert hot.plan("fork", MAPPINGS).runs == (Run(8, 10), Run(1024, 1025))
    again = place.load()
    assert (again.runs, again.recorded.recordings) == ((Run(8, 10), Run(1024, 1025)), 1)
    assert hot_pages.unpack(place.path.read_bytes()).identity == place.image.identity
    assert place.logged == []


def test_hypemans_list_of_another_vm_is_refused(place: Place) -> None:
    place.path.write_bytes(hpl1([RegionPage(2, 0)]))
    hot = place.load()
    assert hot.plan("fork", MAPPINGS).runs == ()
    assert "is refused: its page at 0x0 of region 2 is in none of the VM's 2 regions" in hot.refused
    assert place.logged == [hot.refused]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is refused: 0 bytes are shorter than its header"),
        (b"HPL1", "is refused: its number of pages is cut off"),
        (b"x" * 100, "is refused: its first bytes are not a hot-page list's"),
    ],
)
def test_a_file_that_is_no_list_is_refused_and_recorded_over(place: Place, data: bytes, reason: str) -> None:
    place.path.write_bytes(data)
    hot = place.load()
    assert reason in hot.refused
    assert hot.runs == ()
    hot.keep_recording([1])
    assert hot.refused == ""
    assert place.load().runs == (Run(1, 2),)


def test_a_list_of_another_image_is_refused(place: Place, tmp_path: Path) -> None:
    place.load().keep_recording([1])
    (tmp_path / "mem").touch()
    place.image.close()
    place.image = MemoryImage([tmp_path / "mem"], PAGES * PAGE)
    hot = place.load()
    assert "another memory image" in hot.refused
    assert hot.recorded.recordings == 0


def test_a_list_that_cannot_be_saved_is_used_all_the_same(place: Place) -> None:
    hot = place.load()
    place.path.mkdir()
    hot.keep_recording([1])
    assert "cannot be saved" in hot.refused
    assert hot.runs == (Run(1, 2),)
