"""The program that the jailer starts: its source, its built ELF, which a test builds anew and compares.

`python -m supervisor.vmm.enter` makes the shipped one anew.
"""

from pathlib import Path
from typing import Final

from supervisor.guests.build import build

MACHINE: Final = "x86_64"
"""The only one that it is built for."""
SOURCE: Final = Path(__file__).with_name("enter.s")
PROGRAM: Final = SOURCE.with_suffix(".elf")

if __name__ == "__main__":
    build(PROGRAM, str(SOURCE))
