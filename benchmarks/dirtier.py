"""A guest that writes a number of pages over and over, as an image: nothing else that a VM runs is as even."""

import json
import struct
from pathlib import Path
from typing import Final

from supervisor.guests.pagewalker import HOT_BASE, KERNEL_BASE, PAGE_SIZE

SPINS: Final = 5000
"""Turns of an empty loop after each pass, so that few pages are not written much more often than many."""


def write_image(images: Path, name: str, pages: int) -> None:
    """Make an image whose guest writes `pages` pages, prints a line, and begins again; x86_64, without a halt."""
    directory = images / name
    directory.mkdir()
    (directory / "kernel").write_bytes(_kernel(pages))
    (directory / "vm.json").write_text(json.dumps({"boot-source": {"kernel_image_path": "kernel"}}))


def _kernel(pages: int) -> bytes:
    """Return an ELF file of one segment; Firecracker starts it in 64-bit mode with the first GiB mapped."""
    headers = struct.calcsize("<16sHHIQQQIHHHHHH") + struct.calcsize("<IIQQQQQQ")
    code = _code(pages)
    header = struct.pack(
        "<16sHHIQQQIHHHHHH",
        b"\x7fELF\x02\x01\x01", 2, 62, 1, KERNEL_BASE + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0,
    )  # fmt: skip
    size = headers + len(code)
    segment = struct.pack("<IIQQQQQQ", 1, 7, 0, KERNEL_BASE, KERNEL_BASE, size, size, PAGE_SIZE)
    return header + segment + code


def _code(pages: int) -> bytes:
    body = b"".join(
        (
            b"\xbf" + struct.pack("<I", HOT_BASE),  # mov edi, the first page
            b"\xb9" + struct.pack("<I", pages),  # mov ecx, how many
            b"\x48\xff\x07",  # inc qword [rdi]
            b"\x48\x81\xc7" + struct.pack("<I", PAGE_SIZE),  # add rdi, a page
            b"\xff\xc9",  # dec ecx
            b"\x75\xf2",  # jnz to the inc
            b"\xb9" + struct.pack("<I", SPINS),  # mov ecx, turns
            b"\xff\xc9",  # dec ecx
            b"\x75\xfc",  # jnz to that dec
            b"\xba\xf8\x03\x00\x00",  # mov edx, the serial port
            b"\xb0.\xee",  # mov al, "."; out dx, al
            b"\xb0\n\xee",  # mov al, the end of the line; out dx, al
        )
    )
    return body + b"\xe9" + struct.pack("<i", -(len(body) + 5))  # jmp to the beginning
