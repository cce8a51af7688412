"""The simulated guest's memory above 4 GiB: where it is, when it is written, and what a page server is told."""

import json
import socket
from pathlib import Path
from typing import Final

import pytest

from supervisor.embedded.dirty_log import DirtyLog
from supervisor.embedded.memory import GuestMemory
from supervisor.embedded.walker import Pagewalker, Registers
from supervisor.guests.command_line import CommandLineError, Options, parse_command_line
from supervisor.guests.pagewalker import GAP_BASE, MIB, OLD_GAP_BASE, PAGE_SIZE, UPPER_BASE, mem_file_offset, pattern

SIZE: Final = OLD_GAP_BASE + MIB
SEED: Final = 9
WORDS: Final = f"hot_mib=1 passes=0 seed={SEED} upper_mib=1"


class Walked:
    """A guest that is stopped after each line that it prints."""

    def __init__(self) -> None:
        self.memory = GuestMemory.anonymous(SIZE)
        self.memory.dirty_log = DirtyLog(SIZE // PAGE_SIZE, has_base=False)
        self._lines: list[str] = []
        self._steps = Pagewalker(self.memory, Registers(WORDS), self._lines.append, lambda: 0).run()

    def next_line(self) -> str:
        """Return what the guest prints next."""
        before = len(self._lines)
        while len(self._lines) == before:
            next(self._steps)
        return self._lines[-1]

    def upper_writes(self) -> tuple[int, list[tuple[int, int]]]:
        """Return how often the upper set's first page was written to, and what of it since this was last asked."""
        assert self.memory.dirty_log is not None
        runs = [(start, end) for start, end, _ in self.memory.dirty_log.runs() if start >= GAP_BASE]
        self.memory.dirty_log.reset()
        return int.from_bytes(self.memory.read(UPPER_BASE, 8), "little") - pattern(SEED, UPPER_BASE), runs


def test_memory_above_the_gap_follows_that_below_it() -> None:
    memory = GuestMemory.anonymous(GAP_BASE + MIB)
    memory.write(UPPER_BASE, b"above")
    memory.write(GAP_BASE - 5, b"below")
    assert memory.equals(UPPER_BASE, b"above")
    assert mem_file_offset(UPPER_BASE) == mem_file_offset(GAP_BASE - 1) + 1
    for outside in (GAP_BASE, GAP_BASE - 1, UPPER_BASE - 1, UPPER_BASE + MIB - 1, UPPER_BASE + MIB):
        with pytest.raises(IndexError):
            memory.read(outside, 2)


def test_every_second_walk_writes_to_the_upper_set() -> None:
    guest = Walked()
    all_of_it = [(GAP_BASE, GAP_BASE + MIB)]
    expected = {
        "ready": (0, all_of_it),
        "pass 1": (0, []),
        "pass 2": (1, all_of_it),
        "pass 3": (1, []),
        "pass 4": (2, all_of_it),
    }
    assert {guest.next_line(): guest.upper_writes() for _ in expected} == expected


def test_every_walk_verifies_the_upper_set() -> None:
    guest = Walked()
    while guest.next_line() != "pass 3":
        pass
    wrong = UPPER_BASE + 6 * PAGE_SIZE - 2
    guest.memory.write(wrong, bytes(byte ^ 0xFF for byte in guest.memory.read(wrong, 1)))
    assert guest.next_line() == f"CORRUPT {wrong:#x}"


@pytest.mark.parametrize(("upper_mib", "size"), [(2, SIZE), (1025, 1 << 40), (1, OLD_GAP_BASE), (1, MIB * 64)])
def test_an_upper_set_that_memory_has_no_room_for_is_an_error(upper_mib: int, size: int) -> None:
    with pytest.raises(CommandLineError, match=f"upper_mib={upper_mib} does not fit in memory above 4 GiB"):
        parse_command_line(f"hot_mib=1 upper_mib={upper_mib}", size)
    assert parse_command_line("hot_mib=1", size) == Options(hot_mib=1)


def test_a_page_server_is_told_of_two_regions(userfaultfd: None, run_dir: Path) -> None:
    path = run_dir / "pages.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        memory = GuestMemory.from_page_server(str(path), SIZE)
        peer, _ = listener.accept()
        with peer:
            lower, upper = json.loads(peer.recv(4096))
    assert (lower["offset"], lower["size"]) == (0, GAP_BASE)
    assert (upper["offset"], upper["size"]) == (GAP_BASE, SIZE - GAP_BASE)
    assert upper["base_host_virt_addr"] == lower["base_host_virt_addr"] + GAP_BASE
    assert memory.size == SIZE
