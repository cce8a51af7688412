"""The simulated CPU's pagewalker, stopped at every boundary there is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.embedded.config import Balloon
from supervisor.embedded.memory import GuestMemory
from supervisor.embedded.refusals import MalformedError
from supervisor.embedded.state_file import State, parse
from supervisor.embedded.walker import GENERATION_ADDRESS, Pagewalker, Registers, parse_registers
from supervisor.guests.command_line import CommandLineError, Options, parse_command_line
from supervisor.guests.pagewalker import MIB, pattern

MEMORY = 48 * MIB
START = Registers("hot_mib=2 passes=2 seed=9")
BOOT_LINES = ["ready", "pass 1", "pass 2", "done"]


def walk(memory: GuestMemory, registers: Registers, steps: int, balloon_mib: int = 0) -> tuple[list[str], Registers]:
    """Run at most so many steps, or until the guest waits; returns what it printed and its registers."""
    lines: list[str] = []
    guest = Pagewalker(memory, registers, lines.append, lambda: balloon_mib)
    for step, idle in enumerate(guest.run(), 1):
        if idle is None or step == steps:
            break
    return lines, guest.registers


def generation(memory: GuestMemory, value: bytes) -> None:
    memory.write(GENERATION_ADDRESS, value * 16)


@pytest.mark.parametrize("stops", [1, 2, 3])
def test_a_guest_may_be_stopped_everywhere(stops: int) -> None:
    memory = GuestMemory.anonymous(MEMORY)
    lines: list[str] = []
    registers = START
    while "done" not in lines:
        printed, registers = walk(memory, registers, stops)
        lines += printed
        registers = parse_registers(json.loads(json.dumps(registers._asdict())))
    assert lines == BOOT_LINES


@pytest.mark.parametrize("steps", range(1, 14))
def test_a_guest_may_be_restored_everywhere(steps: int) -> None:
    memory = GuestMemory.anonymous(MEMORY)
    before, registers = walk(memory, START, steps)
    generation(memory, b"\1")
    after, _ = walk(memory, registers, 100)
    if "ready" in before:
        assert after == ["restored", "pass 1", "pass 2", "done"]
    else:
        assert after == BOOT_LINES


def test_a_guest_that_walks_for_ever() -> None:
    memory = GuestMemory.anonymous(MEMORY)
    lines, registers = walk(memory, START._replace(command_line="hot_mib=1 passes=0"), 40)
    assert lines[-1] == f"pass {registers.passes}"
    assert registers.walks == registers.passes > 10
    generation(memory, b"\2")
    lines, restored = walk(memory, registers, 10)
    assert lines[:2] == ["restored", "pass 1"]
    assert restored.walks == registers.walks + restored.passes


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("", Options(16, 8, 1)),
        ("hot_mib=9 ballast_mib=7", Options(9, 8, 1, 7)),
        ("quiet hot_mib=3 init=/bin/sh seed=18446744073709551615 hot_mib=4", Options(4, 8, 2**64 - 1)),
        ("passes=0 seeds=7 passes", Options(16, 0, 1)),
    ],
)
def test_command_lines(text: str, options: Options) -> None:
    assert parse_command_line(text, MEMORY) == options


@pytest.mark.parametrize(
    "text",
    ["hot_mib=17", "hot_mib=993", "hot_mib=x", "seed=-1", "passes=²", "seed=" + "1" * 6000, "hot_mib=9 ballast_mib=8"],
)
def test_command_lines_that_cannot_be_followed(text: str) -> None:
    with pytest.raises(CommandLineError):
        parse_command_line(text, MEMORY)


BALLAST = Registers("hot_mib=2 passes=0 seed=9 ballast_mib=3")
PASS = 9
"""More steps than the boot of BALLAST has, and than a pass has."""


def content(memory: GuestMemory, depth: int) -> str:
    """What the MiB that begins `depth` MiB below the end of memory holds."""
    address = MEMORY - depth * MIB
    page = pattern(9, address).to_bytes(8, "little")
    if memory.read(address, MIB) == bytes(MIB):
        return "zeros"
    assert memory.read(address, 4096) == page + bytes(4080) + page
    return "pattern"


@pytest.mark.parametrize("stops", [1, 2, 9])
def test_the_balloon_takes_and_gives_back_the_end_of_memory(stops: int) -> None:
    memory = GuestMemory.anonymous(MEMORY)
    registers = BALLAST

    def run_with(balloon_mib: int, line: str) -> None:
        nonlocal registers
        printed: list[str] = []
        while line not in printed:
            lines, registers = walk(memory, registers, stops, balloon_mib)
            printed += lines
            assert registers.phase != "stopped", printed

    run_with(0, "ready")
    assert [content(memory, depth) for depth in (1, 2, 3, 4)] == ["pattern"] * 3 + ["zeros"]
    run_with(2, "balloon 512")
    assert [content(memory, depth) for depth in (1, 2, 3)] == ["zeros", "zeros", "pattern"]
    assert (registers.balloon_mib, registers.balloon_peak_mib) == (2, 2)
    run_with(0, "balloon 0")
    assert (registers.balloon_mib, registers.balloon_peak_mib) == (0, 2)
    run_with(0, f"pass {registers.passes + 2}")
    run_with(1 << 32, "balloon 768")
    run_with(1, "balloon 256")
    run_with(1, f"pass {registers.passes + 2}")
    assert [content(memory, depth) for depth in (1, 2, 3)] == ["zeros"] * 3


def test_the_balloon_of_a_guest_that_is_done_moves_when_it_is_woken() -> None:
    memory = GuestMemory.anonymous(MEMORY)
    target = [0]
    lines: list[str] = []
    registers = START._replace(command_line=f"{START.command_line} ballast_mib=3")
    guest = Pagewalker(memory, registers, lines.append, lambda: target[0])
    steps = guest.run()
    while next(steps) is not None:
        assert guest.registers.phase != "stopped"
    for balloon_mib in (3, 3, 1):
        target[0] = balloon_mib
        while next(steps) is not None:
            assert guest.registers.phase == "done"
    assert lines == [*BOOT_LINES, "balloon 768", "balloon 256"]


def after_a_balloon_of_2() -> tuple[GuestMemory, Registers]:
    """A guest whose balloon has held 2 of the 3 MiB of ballast, and has given back one of them."""
    memory = GuestMemory.anonymous(MEMORY)
    registers = BALLAST
    for balloon_mib in (0, 2, 1):
        _, registers = walk(memory, registers, PASS, balloon_mib)
    assert (registers.balloon_mib, registers.balloon_peak_mib) == (1, 2)
    return memory, registers


@pytest.mark.parametrize("address", [MEMORY - 2 * MIB, MEMORY - 2 * MIB + 4095, MEMORY - MIB - 1])
def test_what_the_balloon_gave_back_has_to_be_zero(address: int) -> None:
    memory, registers = after_a_balloon_of_2()
    memory.write(address, b"\1")
    lines, registers = walk(memory, registers, 2 * PASS, 1)
    assert lines[-1] == f"CORRUPT {address:#x}"
    assert registers.phase == "stopped"


def test_what_the_balloon_holds_is_not_looked_at_until_it_gives_it_back() -> None:
    memory, registers = after_a_balloon_of_2()
    memory.write(MEMORY - 1, b"\1")
    lines, registers = walk(memory, registers, 2 * PASS, 1)
    assert len(lines) >= 2
    assert not any("CORRUPT" in line for line in lines)
    lines, _ = walk(memory, registers, 2 * PASS, 0)
    assert lines[-1] == f"CORRUPT {MEMORY - 1:#x}"


def test_ballast_that_the_balloon_has_not_taken_keeps_its_pattern() -> None:
    memory, registers = after_a_balloon_of_2()
    memory.write(MEMORY - 3 * MIB + 8, b"\1")
    lines, _ = walk(memory, registers, 2 * PASS, 1)
    assert lines[-1] == f"CORRUPT {MEMORY - 3 * MIB + 8:#x}"


def test_without_ballast_the_balloon_takes_nothing() -> None:
    lines, registers = walk(GuestMemory.anonymous(MEMORY), START, 1000, 5)
    assert lines == BOOT_LINES
    assert registers.balloon_peak_mib == 0


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,0e1', max_size=50).map(str.encode))
def test_garbage_is_no_state_file(text: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(text)


STATE = {
    "magic": "forktui embedded VMM state",
    "version": "1.1.0",
    "vcpu_count": 1,
    "mem_size_mib": 64,
    "registers": START._asdict(),
    "balloon": None,
}
BALLOON = {"amount_mib": 5, "deflate_on_oom": True, "stats_polling_interval_s": 2}


def test_a_state_file() -> None:
    assert parse(json.dumps(STATE).encode()) == State(1, 64, START)
    assert parse(json.dumps({**STATE, "balloon": BALLOON}).encode()) == State(1, 64, START, Balloon(5, True, 2))


@pytest.mark.parametrize(
    "damage",
    [
        {"magic": "another"},
        {"version": None},
        {"vcpu_count": 0},
        {"vcpu_count": True},
        {"mem_size_mib": 1 << 40},
        {"mem_size_mib": "64"},
        {"registers": None},
        {"registers": {**START._asdict(), "walks": -1}},
        {"registers": {**START._asdict(), "position": 0.5}},
        {"registers": {**START._asdict(), "phase": "sleep"}},
        {"registers": {**START._asdict(), "generation": 7}},
        {"registers": {**START._asdict(), "balloon_peak_mib": 65}},
        {"registers": {**START._asdict(), "balloon_mib": 2, "balloon_peak_mib": 1}},
        {"balloon": {**BALLOON, "amount_mib": -1}},
        {"balloon": {**BALLOON, "stats_polling_interval_s": 1 << 16}},
        {"balloon": [5]},
    ],
)
def test_damaged_state_files(damage: dict[str, object]) -> None:
    with pytest.raises(MalformedError):
        parse(json.dumps({**STATE, **damage}).encode())


def test_access_stays_within_guest_memory() -> None:
    memory = GuestMemory.anonymous(MIB)
    for address in (-1, MIB - 7, 1 << 40):
        with pytest.raises(IndexError):
            memory.read(address, 8)
        with pytest.raises(IndexError):
            memory.write(address, bytes(8))
        with pytest.raises(IndexError):
            memory.equals(address, bytes(8))
