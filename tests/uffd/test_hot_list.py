"""The page server's hot-page list: what it takes from disk, what it keeps there, and what it gives to forks."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from supervisor.system.loop import Loop
from supervisor.uffd import hot_pages
from supervisor.uffd.control import Policy
from supervisor.uffd.handshake import Mapping
from supervisor.uffd.hot_list import HotList
from supervisor.uffd.hot_pages import Run
from supervisor.uffd.hypeman_hot_pages import RegionPage
from supervisor.uffd.memory_image import MemoryImage
from supervisor.uffd.sampling import Plan
from tests.harness.hypeman_hot_pages import hpl1

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
        self.loop = Loop()
        self.kept: list[str] = []

    def load(self, policy: Policy | None = None) -> HotList:
        """The list as a page server that starts now has it."""
        return HotList(self.loop, self.path, self.image, PAGE, policy or Policy(), self.logged.append)

    def keep(self, hot: HotList, *recordings: list[int]) -> None:
        """Have recordings added, one after the other."""
        for number, touched in enumerate(recordings):
            hot.keep_recording(touched, partial(self.kept.append, f"recording{number}"))
        hot.finish()

    def plan(self, hot: HotList, fork_id: str = "fork") -> Plan:
        """What a fork is given."""
        return hot.plan(fork_id, MAPPINGS, partial(self.kept.append, "hypeman's"))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """A template without a list."""
    made = Place(tmp_path)
    yield made
    made.image.close()
    made.loop.close()


def test_recordings_and_samples_are_there_for_the_next_page_server(place: Place) -> None:
    hot = place.load()
    assert (hot.runs, hot.page_count, hot.refused) == ((), 0, "")
    place.keep(hot, [5, 6, 100], [6, 7])
    hot.keep_sample(10, 9)
    hot.keep_sample(10, 8)
    again = place.load()
    assert again.recorded == hot.recorded
    assert again.runs == hot.runs == (Run(5, 8), Run(100, 101))
    assert (again.recorded.recordings, again.recorded.held_back, again.recorded.touched) == (2, 20, 17)
    assert place.logged == []


def test_recordings_are_added_in_turn_while_nothing_else_is_to_be_done(place: Place) -> None:
    hot = place.load()
    hot.keep_recording(list(range(1000, PAGES)), partial(place.kept.append, "first"))

    def second() -> None:
        place.kept.append("second")
        place.loop.stop()

    hot.keep_recording([1], second)
    assert hot.page_count == 0
    place.loop.run()
    assert place.kept == ["first", "second"]
    assert hot.runs == (Run(1000, PAGES), Run(1, 2))
    assert place.load().recorded.recordings == 2


def test_what_few_recordings_touched_is_not_prefetched(place: Place) -> None:
    hot = place.load(Policy(prefetch_share=0.5))
    place.keep(hot, [1, 2, 3], [1, 2], [1, 50])
    assert hot.runs == (Run(1, 3),)
    assert place.load(Policy(prefetch_share=0.0)).runs == (Run(1, 4), Run(50, 51))


def test_every_nth_fork_has_a_sample_held_back(place: Place) -> None:
    hot = place.load(Policy(sample_every=3))
    place.keep(hot, list(range(1000)))
    plans = [place.plan(hot, f"fork{number}") for number in range(9)]
    assert [len(plan.held_back) for plan in plans] == [0, 0, 3] * 3
    assert all(plan.runs == (Run(0, 1000),) for plan in plans if not plan.held_back)
    assert len({plan.held_back for plan in plans}) == 4
    never = place.load(Policy(sample_every=0))
    assert not any(place.plan(never, f"fork{number}").held_back for number in range(20))


def test_hypemans_list_is_taken_in_with_the_first_handshake(place: Place) -> None:
    place.path.write_bytes(hpl1([RegionPage(0, 8 * PAGE), RegionPage(0, 9 * PAGE), RegionPage(1, 0)]))
    hot = place.load()
    assert hot.runs == ()
    assert place.plan(hot).runs == (Run(8, 10), Run(1024, 1025))
    again = place.load()
    assert (again.runs, again.recorded.recordings) == ((Run(8, 10), Run(1024, 1025)), 1)
    assert place.kept == ["hypeman's"]
    assert hot_pages.unpack(place.path.read_bytes()).identity == place.image.identity
    assert place.logged == []


def test_hypemans_list_of_another_vm_is_refused(place: Place) -> None:
    place.path.write_bytes(hpl1([RegionPage(2, 0)]))
    hot = place.load()
    assert place.plan(hot).runs == ()
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
    place.keep(hot, [1])
    assert hot.refused == ""
    assert place.load().runs == (Run(1, 2),)


def test_a_list_of_another_image_is_refused(place: Place, tmp_path: Path) -> None:
    place.keep(place.load(), [1])
    (tmp_path / "mem").touch()
    place.image.close()
    place.image = MemoryImage([tmp_path / "mem"], PAGES * PAGE)
    hot = place.load()
    assert "another memory image" in hot.refused
    assert hot.recorded.recordings == 0


def test_a_list_that_cannot_be_saved_is_used_all_the_same(place: Place) -> None:
    hot = place.load()
    place.path.mkdir()
    place.keep(hot, [1])
    assert "cannot be saved" in hot.refused
    assert hot.runs == (Run(1, 2),)
