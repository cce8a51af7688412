"""A VMM's logs in its instance's directory: the guest's console, and what the VMM itself says."""

import contextlib
import os
import re
from pathlib import Path
from typing import Final

from supervisor.consoles.bounded_file import MODE, begin
from supervisor.consoles.outputs import Bounded, Outputs
from supervisor.consoles.rotation import SUFFIXES
from supervisor.system.regular_files import discard, open_regular

CONSOLE_LOG: Final = "console.log"
VMM_LOG: Final = "vmm.log"
STDERR_LOG: Final = "vmm.stderr"
"""Of VMMs that an earlier version has started."""
LOG_NAMES: Final = (
    *(f"{log}{suffix}" for log in (CONSOLE_LOG, VMM_LOG) for suffix in SUFFIXES),
    STDERR_LOG,
)

LOG_TARGET: Final = "/proc/self/fd/2"
"""Firecracker opens it once more, to read and write and without waiting (open_file_nonblock in its
src/vmm/src/utils/mod.rs): its log and stderr are one pipe, in the order in which they are written, and a log that
nobody takes stops no VM."""
LOG_BYTES: Final = 1 << 20

TAIL_BYTES: Final = 4096
MESSAGE_LENGTH: Final = 400

# What Firecracker's log puts before a message: `2026-01-31T12:00:00.000000000 [instance:thread] `.
_PREFIX: Final = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[[^\]]*\] ")
# Firecracker's messages at any exit, whatever its reason.
_EXIT_MESSAGES: Final = ("Firecracker exiting ", "Vmm is stopping.")
# How it says on stderr once more what is in its log.
_ECHO: Final = "Error: "


def vmm_outputs(directory: Path, console_bytes: int) -> Outputs:
    """Return where what a VMM writes to its stdout and to its stderr is kept."""
    return {1: Bounded(directory / CONSOLE_LOG, console_bytes), 2: Bounded(directory / VMM_LOG, LOG_BYTES)}


def begin_logs(directory: Path) -> None:
    """Have a new VMM begin a log, beside that of an earlier one; the console goes on. Raises OSError."""
    begin(directory / VMM_LOG, LOG_BYTES)
    discard(directory / STDERR_LOG)
    for name in (CONSOLE_LOG, VMM_LOG):
        # Where there can be none now, what comes is dropped and counted until there can.
        with contextlib.suppress(OSError):
            os.close(open_regular(directory / name, os.O_WRONLY | os.O_CREAT, MODE))


def last_message(directory: Path) -> str:
    """Return a VMM's last message; empty where there is none."""
    for name in (VMM_LOG, STDERR_LOG):
        lines = [_PREFIX.sub("", line).strip() for line in reversed(_tail(directory / name).splitlines())]
        found = [line for line in lines if line and not line.startswith(_EXIT_MESSAGES)]
        message = next((line for line in found if not line.startswith(_ECHO)), next(iter(found), ""))
        if message:
            return message[:MESSAGE_LENGTH]
    return ""


def _tail(path: Path) -> str:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""
