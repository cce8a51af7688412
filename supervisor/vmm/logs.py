"""A VMM's logs in its instance's directory: the guest's console, and what the VMM itself says."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisor.consoles.bounded_file import MODE, begin, clear_trees
from supervisor.consoles.outputs import Bounded, Outputs
from supervisor.consoles.rotation import SUFFIXES
from supervisor.embedded import APP_NAME
from supervisor.system.log_text import one_line
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
LOG_LEVEL: Final = "Info"
"""At which Firecracker says that its guest ended in a triple fault, and that it is stopping. A start costs some twenty
lines at it, and each request two."""

TAIL_BYTES: Final = 4096
MESSAGE_LENGTH: Final = 400
LAST_MOMENTS: Final = 5.0
"""Seconds before a VMM's end is told in which what it wrote is about that: what it started may take as long to end
(GROUP_TIMEOUT). A warning that is older is no reason."""

# What Firecracker's log puts before a message: `2026-01-31T12:00:00.000000000 [instance:thread] `.
# The level is there of VMMs that a supervisor has started which had them show it.
_PREFIX: Final = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[[^\]]*\] ")
_NO_FAULT: Final = re.compile(r"^\S+ \[[^\]]*:(?:INFO|DEBUG|TRACE)\] ")
_FINAL: Final = re.compile(rf"(?!{_PREFIX.pattern})|{_PREFIX.pattern}Shutting down VM after intercepting ")
# Firecracker's messages at any exit, whatever its reason, and what it says of vCPUs that it is pausing, or resumes, or
# whose guest has reset the machine.
_EXIT_MESSAGES: Final = (
    "Firecracker exiting ",
    f"{APP_NAME} exiting ",
    "Vmm is stopping.",
    "Requested a vCPU run with immediate_exit enabled.",
    "Received a VcpuEvent::Resume message with immediate_exit enabled.",
)
# How it says on stderr once more what is in its log.
_ECHO: Final = "Error: "


def vmm_outputs(directory: Path, console_bytes: int) -> Outputs:
    """Return where what a VMM writes to its stdout and to its stderr is kept."""
    return {1: Bounded(directory / CONSOLE_LOG, console_bytes), 2: Bounded(directory / VMM_LOG, LOG_BYTES)}


def begin_logs(directory: Path) -> None:
    """Have a new VMM begin a log, beside that of an earlier one; the console goes on. Raises OSError. Blocks.

    A VMM may have left any number of files where a log is to be.
    """
    begin(directory / VMM_LOG, LOG_BYTES)
    clear_trees(directory / CONSOLE_LOG)
    discard(directory / STDERR_LOG)
    for name in (CONSOLE_LOG, VMM_LOG):
        # Where there can be none now, what comes is dropped and counted until there can.
        with contextlib.suppress(OSError):
            os.close(open_regular(directory / name, os.O_WRONLY | os.O_CREAT, MODE))


def last_message(directory: Path) -> str:
    """Return what a VMM said in its last moments; empty where it said nothing."""
    return _told(next(_last_lines(directory), ""))


def final_message(directory: Path) -> str:
    """Return what a VMM said in its last moments that no VMM says and goes on; empty where it said nothing of the kind.

    A panic's message is on a line of its own, in no record of the log (the hook in Firecracker's
    src/firecracker/src/main.rs); what a runtime says is on stderr; and a signal that it ends at has a record of its own
    (src/vmm/src/signal_handler.rs).
    """
    return _told(next((line for line in _last_lines(directory) if _FINAL.match(line)), ""))


def messages(directory: Path) -> list[str]:
    """Return the last messages of a VMM's log, in order and without what the log puts before them."""
    return [_told(line) for line in _tail(directory / VMM_LOG).splitlines()]


def _last_lines(directory: Path) -> Iterator[str]:
    """Yield the last line that says something of each file that was written in the VMM's last moments."""
    for name in (VMM_LOG, STDERR_LOG):
        lines = [line for line in reversed(_recent_tail(directory / name).splitlines()) if _says_something(line)]
        said = next((line for line in lines if not line.startswith(_ECHO)), next(iter(lines), None))
        if said is not None:
            yield said


def _says_something(line: str) -> bool:
    message = _PREFIX.sub("", line).strip()
    return bool(message) and not _NO_FAULT.match(line) and not message.startswith(_EXIT_MESSAGES)


def _told(line: str) -> str:
    return one_line(_PREFIX.sub("", line).strip()[:MESSAGE_LENGTH])


def _recent_tail(path: Path) -> str:
    return _tail(path, LAST_MOMENTS)


def _tail(path: Path, seconds: float | None = None) -> str:
    """Return the end of a log; nothing of one that was not written in the last `seconds`."""
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            status = os.fstat(file.fileno())
            # A file is dated by the wall clock, which may have been set since.
            if seconds is not None and abs(time.time() - status.st_mtime) > seconds:
                return ""
            file.seek(max(0, status.st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""
