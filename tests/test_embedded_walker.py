"""The simulated CPU's pagewalker, stopped at every boundary there is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.embedded.faults import MalformedError
from supervisor.embedded.memory import GuestMemory
from supervisor.embedded.state_file import State, parse
from supervisor.embedded.walker import (
    GENERATION_ADDRESS,
    CommandLineError,
    Options,
    Pagewalker,
    Registers,
    parse_command_line,
    parse_registers,
)
from supervisor.guests.pagewalker import MIB

MEMORY = 48 * MIB
START = Registers("hot_mib=2 passes=2 seed=9")
BOOT_LINES = ["ready", "pass 1", "pass 2", "done"]


def walk(memory: GuestMemory, registers: Registers, steps: int) -> tuple[list[str], Registers]:
    """Run at most so many steps, or until the guest waits; returns what it printed and its registers."""
    lines: list[str] = []
    guest = Pagewalker(memory, registers, lines.append)
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
        ("quiet hot_mib=3 init=/bin/sh seed=18446744073709551615 hot_mib=4", Options(4, 8, 2**64 - 1)),
        ("passes=0 seeds=7 passes", Options(16, 0, 1)),
    ],
)
def test_command_lines(text: str, options: Options) -> None:
    assert parse_command_line(text, MEMORY) == options


@pytest.mark.parametrize(
    "text", ["hot_mib=17", "hot_mib=993", "hot_mib=x", "seed=-1", "passes=²", "seed=" + "1" * 6000]
)
def test_command_lines_that_cannot_be_followed(text: str) -> None:
    with pytest.raises(CommandLineError):
        parse_command_line(text, MEMORY)


@given(st.binary(max_size=200) | st.text(alphabet='{}[]":,0e1', max_size=50).map(str.encode))
def test_garbage_is_no_state_file(text: bytes) -> None:
    with pytest.raises(MalformedError):
        parse(text)


STATE = {
    "magic": "forktui embedded VMM state",
    "version": "1.0.0",
    "vcpu_count": 1,
    "mem_size_mib": 64,
    "registers": START._asdict(),
}


def test_a_state_file() -> None:
    assert parse(json.dumps(STATE).encode()) == State(1, 64, START)


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
