"""The head of a state-file: who wrote it, in which version, and whether that can be told."""

import struct

import pytest

from supervisor.vmm.state_file import parse_state_header, tells_version

X86_64 = 0x0710_1984_8664_0000


@pytest.mark.parametrize("after", [b"0", b"\0", b"123.4"])
def test_a_version_ends_where_its_length_says(after: bytes) -> None:
    head = struct.pack("<QQ", X86_64, 5) + b"6.0.0" + after
    header = parse_state_header(head.ljust(64, b"7"), "state.0")
    assert (header.hypervisor, header.snapshot_version) == ("firecracker", "6.0.0")


def test_the_bytes_of_memory_follow_the_version() -> None:
    head = struct.pack("<QQ6sQ", X86_64, 6, b"6.10.0", 128)
    assert parse_state_header(head.ljust(64, b"\0"), "state.0").size_bytes == 128 << 20


def test_a_state_file_that_ends_in_its_head_is_refused() -> None:
    head = struct.pack("<QQ", X86_64, 41) + b"1." + b"0" * 37 + b".0"
    with pytest.raises(ValueError, match=r"state\.0 is Firecracker's, and ends in its head"):
        parse_state_header(head.ljust(64, b"\0"), "state.0")


@pytest.mark.parametrize("length", [0, 4, 6, 64, 1 << 63])
def test_a_length_that_no_version_has_is_refused(length: int) -> None:
    head = struct.pack("<QQ", X86_64, length) + b"6.0.0"
    with pytest.raises(ValueError, match=r"state\.0 is Firecracker's, and has no version that can be read"):
        parse_state_header(head.ljust(1 << 10, b"x"), "state.0")


def test_of_a_later_firecracker_the_head_is_firecrackers_own() -> None:
    assert [tells_version("firecracker", version) for version in ("6.0.0", "8.1.0", "9.0.0", "10.0.0")] == [
        True,
        True,
        False,
        False,
    ]
    assert tells_version("embedded", "10.0.0")
