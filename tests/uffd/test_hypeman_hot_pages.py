"""hypeman's HPL1 files: their bytes as its own program writes them, and everything else refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.uffd.handshake import Mapping
from supervisor.uffd.hypeman_hot_pages import MAGIC, RegionPage, image_pages, read_hpl1
from tests.harness.hypeman_hot_pages import hpl1, varint

MAPPINGS = (Mapping(1 << 40, 8 << 20, 0), Mapping(1 << 41, 4 << 20, 8 << 20))
PAGES = st.lists(st.builds(RegionPage, st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)), max_size=50)


def test_the_bytes_of_a_small_list_are_read() -> None:
    data = bytes.fromhex("48504c31 03 00 00 00 8020 02 808040")
    assert read_hpl1(data) == (RegionPage(0, 0), RegionPage(0, 4096), RegionPage(2, 1 << 20))
    assert read_hpl1(MAGIC + b"\0") == ()


@given(PAGES)
def test_a_list_comes_back_as_it_was_saved(pages: list[RegionPage]) -> None:
    assert read_hpl1(hpl1(pages)) == tuple(pages)


@given(PAGES, st.data())
def test_a_list_that_is_cut_or_goes_on_is_refused(pages: list[RegionPage], data: st.DataObject) -> None:
    whole = hpl1(pages)
    with pytest.raises(ValueError, match=r"its first bytes|cut off|cannot hold"):
        read_hpl1(whole[: data.draw(st.integers(0, len(whole) - 1))])
    with pytest.raises(ValueError, match="behind its last page"):
        read_hpl1(whole + data.draw(st.binary(min_size=1, max_size=9)))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_refused(data: bytes) -> None:
    try:
        pages = read_hpl1(MAGIC + data)
    except ValueError as error:
        assert str(error)
    else:
        assert read_hpl1(hpl1(list(pages))) == pages


def test_a_number_past_64_bits_and_a_count_past_the_file_are_refused() -> None:
    with pytest.raises(ValueError, match="its number of pages is cut off or no number of 64 bits"):
        read_hpl1(MAGIC + b"\xff" * 9 + b"\x02")
    with pytest.raises(ValueError, match="its number of pages is cut off or no number of 64 bits"):
        read_hpl1(MAGIC + b"\x80" * 10 + b"\0")
    with pytest.raises(ValueError, match=f"it tells of {(1 << 64) - 1} pages"):
        read_hpl1(hpl1([])[:-1] + varint((1 << 64) - 1))


def test_pages_are_found_in_the_image_by_their_region() -> None:
    pages = [RegionPage(0, 4096), RegionPage(1, 0), RegionPage(1, (4 << 20) - 4096)]
    assert image_pages(pages, MAPPINGS, 4096) == [1, 2048, 3071]
    assert image_pages([RegionPage(1, 2 << 20)], MAPPINGS, 2 << 20) == [5]


@pytest.mark.parametrize(
    ("page", "reason"),
    [
        (RegionPage(0, 100), "its page at 0x64 of region 0 is none of 4096 bytes"),
        (RegionPage(0, 8 << 20), "its page at 0x800000 of region 0 is in none of the VM's 2 regions"),
        (RegionPage(2, 0), "its page at 0x0 of region 2 is in none"),
    ],
)
def test_a_list_of_another_vm_is_refused(page: RegionPage, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        image_pages([RegionPage(0, 0), page], MAPPINGS, 4096)
