"""The mappings of a handshake: which are believed."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import PageServerError
from supervisor.uffd import handshake
from supervisor.uffd.handshake import Mapping, parse_mappings

PAGE = 4096
HUGE = 2 << 20
MIB = 1 << 20
FIRST = {"base_host_virt_addr": 0x7F0000000000, "size": 3 * MIB, "offset": 0, "page_size": PAGE, "page_size_kib": PAGE}
SECOND = {**FIRST, "base_host_virt_addr": 0x7F1000000000, "size": MIB, "offset": 3 * MIB}


def parse(*entries: Any, size: int = 4 * MIB, page_size: int = PAGE) -> tuple[Mapping, ...]:
    """The mappings of these entries."""
    return parse_mappings(json.dumps(entries).encode(), size, page_size)


def test_mappings_are_ordered_by_offset() -> None:
    expected = (Mapping(0x7F0000000000, 3 * MIB, 0), Mapping(0x7F1000000000, MIB, 3 * MIB))
    assert parse(FIRST, SECOND) == parse(SECOND, FIRST) == expected


def test_the_older_name_of_the_page_size_holds_bytes_too() -> None:
    older = {name: value for name, value in FIRST.items() if name != "page_size"}
    assert parse(older, size=3 * MIB) == (Mapping(0x7F0000000000, 3 * MIB, 0),)


def test_huge_pages() -> None:
    mapping = {**FIRST, "size": 4 * MIB, "page_size": HUGE}
    assert parse(mapping, page_size=HUGE) == (Mapping(0x7F0000000000, 4 * MIB, 0),)
    with pytest.raises(PageServerError, match="not aligned"):
        parse({**mapping, "size": 3 * MIB}, size=3 * MIB, page_size=HUGE)


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        ([], "not a JSON array of mappings"),
        ([1], "not a mapping"),
        ([FIRST], "have 3145728 bytes and the memory image 4194304"),
        ([FIRST, {**SECOND, "offset": 2 * MIB}], "overlaps the one before"),
        ([FIRST, {**SECOND, "offset": 3 * MIB + PAGE}], "leaves a gap"),
        ([{**FIRST, "offset": PAGE}, SECOND], "leaves a gap"),
        ([FIRST, SECOND, {**SECOND, "offset": 4 * MIB}], "have 5242880 bytes"),
        ([FIRST, {**SECOND, "base_host_virt_addr": FIRST["base_host_virt_addr"] + MIB}], "address 0x7f0000100000 over"),
        ([FIRST, {**SECOND, "base_host_virt_addr": (1 << 64) - PAGE}], "overflows the address space"),
        ([FIRST, {**SECOND, "base_host_virt_addr": 5}], "not aligned"),
        ([FIRST, {**SECOND, "size": MIB - 1}], "not aligned"),
        ([FIRST, {**SECOND, "size": 0}], "empty"),
        ([FIRST, {**SECOND, "size": -MIB}], "size is missing or no whole number"),
        ([FIRST, {**SECOND, "size": 1e6}], "size is missing or no whole number"),
        ([FIRST, {**SECOND, "size": True}], "size is missing or no whole number"),
        ([FIRST, {**SECOND, "offset": "0"}], "offset is missing or no whole number"),
        ([FIRST, {**SECOND, "page_size": HUGE}], "page_size is 2097152 and the template's 4096"),
        ([{"base_host_virt_addr": 0, "size": 4 * MIB, "offset": 0}], "page_size_kib is missing"),
    ],
)
def test_mappings_that_do_not_cover_the_image_exactly_are_refused(entries: list[Any], reason: str) -> None:
    with pytest.raises(PageServerError, match=reason):
        parse(*entries)


SCALAR = st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats() | st.text(max_size=3)
NAMES = st.sampled_from(sorted(FIRST)) | st.text(max_size=3)


@given(st.binary(max_size=200) | st.recursive(SCALAR, lambda inner: st.lists(inner) | st.dictionaries(NAMES, inner)))
def test_anything_is_refused_or_is_an_exact_cover(anything: Any) -> None:
    message = anything if isinstance(anything, bytes) else json.dumps(anything).encode()
    with pytest.raises(PageServerError):
        parse_mappings(message, 4 * MIB, PAGE)


def test_numbers_and_nesting_without_end_are_refused() -> None:
    for message in (b"[" * 60000, b"[" + b"9" * 60000 + b"]", b"\xff[]"):
        with pytest.raises(PageServerError, match="not JSON"):
            parse_mappings(message, 4 * MIB, PAGE)


def test_a_path_that_no_socket_can_have_is_refused(run_dir: Path) -> None:
    with pytest.raises(PageServerError, match="107 bytes, and this one has"):
        handshake.listen(run_dir / ("x" * 107))
    with pytest.raises(PageServerError, match=r"cannot listen at .*: No such file"):
        handshake.listen(run_dir / "none" / "socket")
    exact = run_dir / ("x" * (107 - len(os.fsencode(run_dir)) - 1))
    handshake.listen(exact).close()
