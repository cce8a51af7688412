"""pagewalker as the simulated CPU runs it, after the contract of supervisor.guests.pagewalker."""

import ctypes
import time
from array import array
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from supervisor.embedded.memory import Content, GuestMemory
from supervisor.embedded.refusals import MalformedError
from supervisor.guests.command_line import CommandLineError, Options, parse_command_line
from supervisor.guests.pagewalker import (
    HALT,
    HOT_BASE,
    LAST_WORDS,
    MIB,
    PAGE_SIZE,
    SCRATCH_BASE,
    SCRATCH_PAGES,
    TRIPLE_FAULT,
    UPPER_BASE,
    WORD_MASK,
    ballast_end,
    pattern,
    upper_writes,
)

GENERATION_ADDRESS: Final = 0xDFFF0
"""Where the VM generation id is: the last 16 bytes of Firecracker's system memory, which ends at its RSDP_ADDR."""
GENERATION_BYTES: Final = 16
PASS_SECONDS: Final = 0.025
"""How long a pass takes at least, so that ten walking forks do not fill two cores; a real guest takes about as long."""
BOOT, FILL, WALK, DONE, STOPPED = "boot", "fill", "walk", "done", "stopped"
_PAGES: Final = MIB // PAGE_SIZE
_WORDS: Final = PAGE_SIZE // 8


class Registers(NamedTuple):
    """What the CPU knows besides guest memory.

    `position` is the next MiB to fill or verify: those of the hot set, then those of the ballast. `balloon_mib` is what
    the balloon holds, always from the end of the ballast, `balloon_peak_mib` the most that it ever held.
    """

    command_line: str
    phase: str = BOOT
    position: int = 0
    walks: int = 0
    passes: int = 0
    generation: str = ""
    balloon_mib: int = 0
    balloon_peak_mib: int = 0


def parse_registers(value: Any) -> Registers:
    """Return the registers that `Registers._asdict` gave; raises MalformedError."""
    defaults = Registers("")._asdict()
    if not isinstance(value, Mapping) or value.keys() != defaults.keys():
        raise MalformedError("the registers are not those of a pagewalker")
    for name, default in defaults.items():
        if type(value[name]) is not type(default) or (isinstance(default, int) and not 0 <= value[name] <= WORD_MASK):
            raise MalformedError(f"the register {name} is not one of a pagewalker")
    registers = Registers(**value)
    if registers.phase not in (BOOT, FILL, WALK, DONE, STOPPED):
        raise MalformedError("the register phase is not one of a pagewalker")
    return registers


class GuestEnd(Exception):  # noqa: N818 - no error of the VMM's
    """The guest has ended its machine: by a reset, or by a triple fault."""

    def __init__(self, triple_fault: bool) -> None:
        super().__init__()
        self.triple_fault = triple_fault


class Pagewalker:
    """A guest in progress; `registers` is up to date whenever `run` has yielded.

    `balloon_target` says how many MiB the balloon is to hold.
    """

    def __init__(
        self,
        memory: GuestMemory,
        registers: Registers,
        print_line: Callable[[str], None],
        balloon_target: Callable[[], int],
    ) -> None:
        self.registers = registers
        self._memory = memory
        self._print = print_line
        self._balloon_target = balloon_target
        self._ballast_end = ballast_end(memory.size)
        self._zeros = bytes(MIB)
        self._pattern = (ctypes.c_char * MIB)()
        self._pattern_words = memoryview(self._pattern).cast("B").cast("Q")
        self._words: array[int] = array("Q")
        self._options = Options()

    def run(self) -> Iterator[float | None]:
        """Go on from the registers; yield wherever the CPU may be stopped.

        The value is how many seconds the guest idles there; None: until something from outside wakes it.
        """
        try:
            self._options = parse_command_line(self.registers.command_line, self._memory.size)
        except CommandLineError as error:
            if self.registers.phase == BOOT:
                self._print(f"error: {error}")
            self._set(phase=STOPPED)
        steps = {BOOT: self._boot, FILL: self._fill, WALK: self._walk, DONE: self._wait_to_be_woken}
        while self.registers.phase != STOPPED:
            yield from steps[self.registers.phase]()
        while True:
            yield None

    def _set(self, **registers: Any) -> None:
        self.registers = self.registers._replace(**registers)

    def _boot(self) -> Iterator[float | None]:
        for address in _scratch():
            self._memory.write(address, self._word(address))
        self._set(phase=FILL)
        yield 0.0

    def _fill(self) -> Iterator[float | None]:
        while self.registers.position < self._walked_mib():
            position = self.registers.position
            self._memory.write(self._address(position), self._pattern_of(position))
            self._set(position=position + 1)
            yield 0.0
        for address in self._upper():
            self._memory.write(address, self._upper_page(address, 0))
        self._print("ready")
        self._set(phase=WALK, position=0, generation=self._generation())

    def _walk(self) -> Iterator[float | None]:
        """One pass; a restore in the midst of it begins it anew."""
        started = time.monotonic()
        while self._restored() or self.registers.position < self._walked_mib():
            yield from self._follow_balloon()
            if not self._verify(self.registers.position):
                return
            self._set(position=self.registers.position + 1)
            yield 0.0
        for address in _scratch():
            if not self._holds(address, self._word(address, self.registers.walks)):
                return
            self._memory.write(address, self._word(address, self.registers.walks + 1))
        if not self._walk_upper(self.registers.walks):
            return
        self._set(position=0, walks=self.registers.walks + 1, passes=self.registers.passes + 1)
        self._print(f"pass {self.registers.passes}")
        if self.registers.passes == self._options.passes:
            self._set(phase=DONE)
            self._print("done")
            if self._options.end:
                self._end_by_itself(self._options.end)
                return
        yield max(0.0, PASS_SECONDS - (time.monotonic() - started))

    def _end_by_itself(self, end: int) -> None:
        self._set(phase=STOPPED)
        if end in LAST_WORDS:
            self._print(LAST_WORDS[end])
        if end != HALT:
            raise GuestEnd(triple_fault=end == TRIPLE_FAULT)

    def _walk_upper(self, walks: int) -> bool:
        """Whether the upper set is as `walks` walks left it; it is then as one more leaves it."""
        before, after = upper_writes(walks), upper_writes(walks + 1)
        for address in self._upper():
            if not self._holds(address, self._upper_page(address, before)):
                return False
            if before != after:
                self._memory.write(address, self._word(address, after))
        return True

    def _wait_to_be_woken(self) -> Iterator[float | None]:
        if self._restored():
            self._set(phase=WALK)
            return
        yield from self._follow_balloon()
        yield None

    def _restored(self) -> bool:
        """Whether the generation id has changed; if so, passes are counted anew, from the first page."""
        generation = self._generation()
        if generation == self.registers.generation:
            return False
        self._print("restored")
        self._set(generation=generation, position=0, passes=0)
        return True

    def _generation(self) -> str:
        return self._memory.read(GENERATION_ADDRESS, GENERATION_BYTES).hex()

    def _follow_balloon(self) -> Iterator[float | None]:
        """Have the balloon take or give back what it should, a MiB at a time, as far as the ballast goes."""
        most = self._options.ballast_mib
        while (size := self.registers.balloon_mib) != (target := min(self._balloon_target(), most)):
            if size < target:
                size += 1
                self._memory.discard(self._ballast_end - size * MIB, MIB)
                self._set(balloon_mib=size, balloon_peak_mib=max(size, self.registers.balloon_peak_mib))
            else:
                size -= 1
                self._set(balloon_mib=size)
            if size == target:
                self._print(f"balloon {size * _PAGES}")
            yield 0.0

    def _verify(self, position: int) -> bool:
        """Whether a MiB is as it should be; one that the balloon holds is, and is not touched."""
        address = self._address(position)
        depth = (self._ballast_end - address) // MIB
        if depth <= self.registers.balloon_mib:
            return True
        given_back = depth <= self.registers.balloon_peak_mib
        return self._holds(address, self._zeros if given_back else self._pattern_of(position))

    def _holds(self, address: int, expected: Content) -> bool:
        """Whether memory is as expected; where it is not, the guest says so and stops."""
        if self._memory.equals(address, expected):
            return True
        self._print(f"CORRUPT {self._first_difference(address, expected):#x}")
        self._set(phase=STOPPED)
        return False

    def _first_difference(self, address: int, expected: Content) -> int:
        """Return the address of the first byte from `address` on that is not as expected."""
        view = memoryview(expected).cast("B")
        for offset in range(0, len(view), PAGE_SIZE):
            page = bytes(view[offset : offset + PAGE_SIZE])
            if not self._memory.equals(address + offset, page):
                found = self._memory.read(address + offset, len(page))
                return address + offset + next(at for at in range(len(page)) if found[at] != page[at])
        return address

    def _walked_mib(self) -> int:
        return self._options.hot_mib + self._options.ballast_mib

    def _address(self, position: int) -> int:
        if position < self._options.hot_mib:
            return HOT_BASE + position * MIB
        return self._ballast_end - (self._walked_mib() - position) * MIB

    def _upper(self) -> range:
        return range(UPPER_BASE, UPPER_BASE + self._options.upper_mib * MIB, PAGE_SIZE)

    def _upper_page(self, address: int, writes: int) -> bytes:
        return self._word(address, writes) + bytes(PAGE_SIZE - 16) + self._word(address)

    def _word(self, address: int, walks: int = 0) -> bytes:
        return (pattern(self._options.seed, address) + walks & WORD_MASK).to_bytes(8, "little")

    def _pattern_of(self, position: int) -> Content:
        """Return what the MiB at `position` was filled with; good until the next call."""
        if not self._words:
            for start in map(self._address, range(self._walked_mib())):
                self._words.extend(pattern(self._options.seed, page) for page in range(start, start + MIB, PAGE_SIZE))
        words = memoryview(self._words)[position * _PAGES : (position + 1) * _PAGES]
        self._pattern_words[0::_WORDS] = words
        self._pattern_words[_WORDS - 1 :: _WORDS] = words
        return self._pattern


def _scratch() -> range:
    return range(SCRATCH_BASE, SCRATCH_BASE + SCRATCH_PAGES * PAGE_SIZE, PAGE_SIZE)
