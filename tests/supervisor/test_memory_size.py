"""Sizes of memory: how they are written, and which are absurd."""

import pytest

from supervisor.errors import InvalidSizeError
from supervisor.images.memory_size import parse_size
from supervisor.models.base import MIB


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("128MB", 128),
        ("128 MB", 128),
        ("512MiB", 512),
        ("512m", 512),
        ("1G", 1024),
        ("2gib", 2048),
        ("65536K", 64),
        (str(128 * MIB), 128),
        (f"{128 * MIB}B", 128),
        (" 32MB\n", 32),
    ],
)
def test_sizes_are_read(text: str, mib: int) -> None:
    assert parse_size(text, maximum=2048 * MIB) == mib * MIB


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "write a number with a unit"),
        ("MB", "write a number with a unit"),
        ("-1G", "write a number with a unit"),
        ("1.5G", "write a number with a unit"),
        ("1X", "write a number with a unit"),
        ("\u0661\u0662\u0668MB", "write a number with a unit"),
        ("9" * 5000, "write a number with a unit"),
        ("0MB", "a VM may have 32MB to 2048MB"),
        ("31MB", "a VM may have 32MB to 2048MB"),
        ("128", "without a unit it is read as bytes; write 128MB"),
        ("128B", "a VM may have 32MB to 2048MB"),
        ("4000", "a VM may have 32MB to 2048MB"),
        ("2049MB", "a VM may have 32MB to 2048MB"),
        ("1000T", "a VM may have 32MB to 2048MB"),
        ("33000K", "a whole number of MiB, 32MB to 2048MB"),
    ],
)
def test_sizes_that_are_absurd_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidSizeError) as refused:
        parse_size(text, maximum=2048 * MIB)
    assert reason in refused.value.message
    assert len(refused.value.message) < 200


def test_a_vm_is_not_larger_than_the_host() -> None:
    assert parse_size("64MB") == 64 * MIB
    with pytest.raises(InvalidSizeError):
        parse_size("900T")
