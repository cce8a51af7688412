"""VMMs that run pagewalker, and what the memory of such a guest holds."""

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from supervisor.guests import pagewalker
from supervisor.guests.pagewalker import (
    GAP_BASE,
    HOT_BASE,
    OLD_GAP_BASE,
    PAGE_SIZE,
    mem_file_offset,
    minimum_memory,
    pattern,
)
from supervisor.uffd.memory_image import data_extents
from tests.harness.vmm_process import VmmProcess

KERNEL = Path(pagewalker.__file__).with_suffix(".elf")
MEMORY_MIB: Final = 64
HOT_MIB: Final = 3
SEED: Final = 0xFEDC_BA98_7654_3210
SILENCE: Final = 0.1
"""Seconds in which a guest that had not halted would walk its hot set of HOT_MIB some twenty times."""
WORD: Final = struct.Struct("<Q")


def write_config(
    folder: Path,
    boot_args: str = "",
    mem_size_mib: int = MEMORY_MIB,
    balloon_mib: int | None = None,
    track: bool = False,
) -> str:
    """Write a config file that boots pagewalker; returns its name."""
    config: dict[str, Any] = {
        "boot-source": {"kernel_image_path": str(KERNEL), "boot_args": boot_args},
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": mem_size_mib, "track_dirty_pages": track},
    }
    if balloon_mib is not None:
        config["balloon"] = {"amount_mib": balloon_mib, "deflate_on_oom": False, "stats_polling_interval_s": 1}
    (folder / "vm.json").write_text(json.dumps(config))
    return "vm.json"


@contextmanager
def firecracker_vmm(firecracker: Path, folder: Path, *arguments: str) -> Iterator[VmmProcess]:
    """A Firecracker in a new folder; it is killed with the context."""
    folder.mkdir()
    vmm = VmmProcess(folder, *arguments, program=(str(firecracker), "--log-path", "/dev/stderr"))
    try:
        yield vmm
    finally:
        vmm.close()


@contextmanager
def booted(
    firecracker: Path, folder: Path, arguments: str, memory_mib: int = MEMORY_MIB, **sections: dict[str, Any]
) -> Iterator[VmmProcess]:
    """A Firecracker that boots pagewalker with the command line `arguments`; `sections` are more of its config file."""
    config = folder.with_suffix(".json")
    machine = {"vcpu_count": 1, "mem_size_mib": memory_mib}
    source = {"kernel_image_path": str(KERNEL), "boot_args": arguments}
    config.write_text(json.dumps({"boot-source": source, "drives": [], "machine-config": machine} | sections))
    with firecracker_vmm(firecracker, folder, "--config-file", str(config)) as vmm:
        yield vmm


@contextmanager
def restored(firecracker: Path, folder: Path, mem_file: Path, page_server: Path | None = None) -> Iterator[VmmProcess]:
    """A Firecracker that runs on from the snapshot beside `mem_file`, with its memory from `page_server` if any."""
    with firecracker_vmm(firecracker, folder) as vmm:
        vmm.load(mem_file.with_name("state"), "Uffd" if page_server else "File", page_server or mem_file)
        yield vmm


def passes(first: int, last: int) -> list[str]:
    return [f"pass {number}" for number in range(first, last + 1)]


def read(mem_file: Path, address: int, size: int) -> bytes:
    with mem_file.open("rb") as file:
        file.seek(address)
        return file.read(size)


def filled(start: int, end: int, seed: int) -> bytes:
    """Return what the pages from `start` to `end` have to hold in the hot set and in the ballast."""
    between = bytes(PAGE_SIZE - 2 * WORD.size)
    words = (WORD.pack(pattern(seed, address)) for address in range(start, end, PAGE_SIZE))
    return b"".join(word + between + word for word in words)


def upper_offset(vmm: VmmProcess, address: int) -> int:
    """Return where in its mem-file a Firecracker has the byte at an address above 4 GiB."""
    version = vmm.request("GET", "/version")[1]["firecracker_version"]
    return mem_file_offset(address, OLD_GAP_BASE if version.startswith("1.12.") else GAP_BASE)


def hot_set(hot_mib: int, seed: int) -> bytes:
    return filled(HOT_BASE, minimum_memory(hot_mib), seed)


def with_flipped_byte(mem_file: Path, folder: Path, address: int) -> Path:
    """Return a sparse copy of a snapshot's mem-file in which one byte is another, beside a copy of the state-file."""
    folder.mkdir()
    shutil.copy(mem_file.with_name("state"), folder / "state")
    subprocess.run(("cp", "--sparse=always", str(mem_file), str(folder / "mem")), check=True)
    wrong = read(mem_file, address, 1)[0] ^ 0x40
    with (folder / "mem").open("r+b") as file:
        file.seek(address)
        file.write(bytes((wrong,)))
    return folder / "mem"


def extents(mem_file: Path) -> list[tuple[int, int]]:
    """Where a mem-file has data: [start, end) in bytes."""
    with mem_file.open("rb") as file:
        return list(data_extents(file.fileno(), mem_file.stat().st_size))


def merged(*layers: Path) -> bytes:
    """The memory that mem-files make, the oldest first."""
    memory = bytearray(layers[0].stat().st_size)
    for mem_file in layers:
        with mem_file.open("rb") as file:
            for start, end in extents(mem_file):
                memory[start:end] = os.pread(file.fileno(), end - start, start)
    return bytes(memory)
