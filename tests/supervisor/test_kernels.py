"""Kernels as they are given: what is taken out of a bzImage, and what is refused as none."""

import gzip
import struct
from pathlib import Path

import pytest

from supervisor.images import kernel as kernel_module
from supervisor.images.disk_room import Room
from supervisor.images.kernel import KernelError, to_elf
from tests.harness.kernels import COMPRESSIONS, bzimage, vmlinux

MIB = 1 << 20


def taken(directory: Path, given: bytes) -> str:
    (directory / "given").write_bytes(given)
    return to_elf(directory / "given", directory / "vmlinux", Room())


def test_a_vmlinux_is_taken_as_it_is_and_closed_to_others(tmp_path: Path) -> None:
    assert taken(tmp_path, vmlinux()) == "a vmlinux"
    assert (tmp_path / "vmlinux").read_bytes() == vmlinux()
    assert (tmp_path / "vmlinux").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("name", COMPRESSIONS)
@pytest.mark.parametrize("size_behind", [True, False])
def test_the_payload_of_a_bzimage_is_taken_out(tmp_path: Path, name: str, size_behind: bool) -> None:
    payload = COMPRESSIONS[name](vmlinux())
    if name in ("gzip", "nothing"):
        size_behind = False
    assert taken(tmp_path, bzimage(payload, size_behind=size_behind)) == f"a bzImage ({name})"
    assert (tmp_path / "vmlinux").read_bytes() == vmlinux()


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (b"", "neither a vmlinux"),
        (b"ELF", "neither a vmlinux"),
        (b"MZ" + bytes(4096), "neither a vmlinux"),
        (b"\x7fELF", "no ELF file of 64 bits"),
        (b"\x7fELF\x01\x01" + bytes(64), "no ELF file of 64 bits"),
        (b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HH", 1, 62) + bytes(60), "no program for x86-64"),
        (b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HH", 2, 183) + bytes(60), "machine 183"),
        (b"\x7fELF\x02\x01" + bytes(10) + struct.pack("<HH", 2, 62) + bytes(60), "nothing to load"),
        (bytes(56) + b"ARM\x64" + bytes(64), "for aarch64"),
        (bzimage(b"\x28\xb5\x2f\xfd" + b"\xff" * 99), "cannot be uncompressed"),
        (bzimage(gzip.compress(vmlinux(), mtime=0)[:-900], size_behind=False), "cannot be uncompressed"),
        (bzimage(COMPRESSIONS["xz"](vmlinux())[:-900], size_behind=False), "cannot be uncompressed"),
        (bzimage(gzip.compress(b"no kernel", mtime=0), size_behind=False), "no ELF file"),
        (bzimage(b"\x89LZO\0\r\n" + bytes(99)), "begins with 894c5a4f000d"),
        (bzimage(b"\x02\x21\x4c\x18\x09\0\0\0" + b"\xff" * 9), "cannot be uncompressed"),
        (bzimage(COMPRESSIONS["lz4"](vmlinux())[:-900], size_behind=False), "cannot be uncompressed"),
        (bzimage(b"", size_behind=False), "payload ends at"),
        (bzimage(vmlinux(), length=1 << 31), "payload ends at"),
        (bzimage(vmlinux(), version=0x207), "before 2.6.26"),
        (bzimage(vmlinux())[:0x210], "before 2.6.26"),
    ],
)
def test_what_is_no_kernel_is_refused_with_the_reason(tmp_path: Path, given: bytes, why: str) -> None:
    with pytest.raises(KernelError, match=why):
        taken(tmp_path, given)


@pytest.mark.parametrize("name", ["gzip", "xz", "bzip2", "zstd", "lz4"])
def test_a_payload_that_grows_without_end_is_given_up(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernel_module, "LARGEST_KERNEL", 16 * MIB)
    bomb = bzimage(COMPRESSIONS[name](bytes(64 * MIB)), size_behind=name != "gzip")
    assert len(bomb) < MIB
    with pytest.raises(KernelError, match="more than 16 MiB"):
        taken(tmp_path, bomb)
    assert (tmp_path / "vmlinux").stat().st_size <= 16 * MIB
