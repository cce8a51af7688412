"""What guests say on their consoles. Pure; the agent uses it as well."""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

RESEEDED: Final = "random: crng reseeded due to virtual machine fork"
OOPS: Final = re.compile(r"Oops|BUG:|WARNING: CPU(?!.*fpu__init_system_xstate)|INFO: rcu_.*stall|soft lockup")
"""A kernel's complaints, but for one at its boot: QEMU's processor has the size of its registers wrong (XSAVE)."""
CLOCK_STEP: Final = 1.0
"""Seconds that a guest's stamp may be off: its ticks have whole ones, and half of one is let pass (guest_init.sh)."""
_TICK: Final = re.compile(r"^tick (\d+) date (\d+) memory (\S+) disk (\S+) uuid (\S+)\r?$", re.MULTILINE)


class Tick(NamedTuple):
    """One look of a guest at its memory and its disk: what is there is what it wrote."""

    number: int
    date: int
    """Seconds since the epoch, by the guest's clock."""
    memory: str
    disk: str
    """The number that is read back from the disk."""
    uuid: str
    """Of the guest's random numbers, and written to its disk."""


class Stamps(NamedTuple):
    """A tick's date between two stamps of its host, in seconds since the epoch: before it was taken, and after."""

    before: float
    guest: int
    after: float

    def agree(self) -> bool:
        """Say whether the guest's clock is its host's, give or take CLOCK_STEP."""
        return self.before - CLOCK_STEP <= self.guest <= self.after + CLOCK_STEP


def ticks(console: str) -> list[Tick]:
    """Return what a console says, in its order."""
    return [
        Tick(int(number), int(date), memory, disk, uuid) for number, date, memory, disk, uuid in _TICK.findall(console)
    ]


def without_gap(found: Sequence[Tick]) -> bool:
    """Say whether each tick follows the one before."""
    return [tick.number for tick in found] == [found[0].number + place for place in range(len(found))]
