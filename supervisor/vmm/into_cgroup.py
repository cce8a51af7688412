"""The program that begins another one in a cgroup: its source, its built ELF, which a test builds anew and compares.

`python -m supervisor.vmm.into_cgroup` makes the shipped one anew.
"""

import contextlib
import os
import platform
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Final

from supervisor.guests.build import build

MACHINE: Final = "x86_64"
"""The only one that it is built for."""
KERNEL: Final = (5, 7)
"""The first that has CLONE_INTO_CGROUP: clone(2)."""
SOURCE: Final = Path(__file__).with_name("into_cgroup.s")
PROGRAM: Final = SOURCE.with_suffix(".elf")

Start = Callable[[tuple[str, ...], tuple[int, ...]], "subprocess.Popen[bytes]"]
"""Starts what is put before a command, and hands on these descriptors."""


def prepare(program: Path) -> bool:
    """Make the program, whose own file need not be one to execute; False where none works here. Raises OSError."""
    release = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
    if platform.machine() != MACHINE or release < KERNEL:
        return False
    program.unlink(missing_ok=True)
    program.write_bytes(PROGRAM.read_bytes())
    program.chmod(0o500)
    return True


def begin(program: Path, cgroup: int, tasks: tuple[int, ...], start: Start) -> int:
    """Return the pid of a child that the prepared program began in cgroups; raises OSError.

    `cgroup` is the descriptor of one of the second version, `tasks` are those of such files of the first.
    """
    reader, writer = os.pipe()
    try:
        words = (str(program), str(cgroup), str(writer), ",".join(map(str, tasks)))
        helper = start(words, (cgroup, writer, *tasks))
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    with contextlib.closing(os.fdopen(reader, "rb")) as told:
        # Up to its end: the helper's, and the child's, which leads a session by then.
        pid = int.from_bytes(told.read(), "little")
    number = helper.wait()
    if not pid:
        raise OSError(abs(number), os.strerror(abs(number)), str(program))
    return pid


if __name__ == "__main__":
    build(PROGRAM, str(SOURCE))
