"""A VMM's logs in its instance's directory: the guest's console, Firecracker's own log, and stderr."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisor.system.log_text import one_line
from supervisor.system.regular_files import discard, open_regular

CONSOLE_LOG: Final = "console.log"
VMM_LOG: Final = "vmm.log"
PREVIOUS_VMM_LOG: Final = "vmm.log.1"
STDERR_LOG: Final = "vmm.stderr"

TAIL_BYTES: Final = 4096
MESSAGE_LENGTH: Final = 400
LAST_MOMENTS: Final = 5.0
"""Seconds before a VMM's end is told in which what it wrote is about that: what it started may take as long to end
(GROUP_TIMEOUT). A warning that is older is no reason."""

# What Firecracker's log puts before a message: `2026-01-31T12:00:00.000000000 [instance:thread] `.
_PREFIX: Final = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[[^\]]*\] ")
_FINAL: Final = re.compile(rf"(?!{_PREFIX.pattern})|{_PREFIX.pattern}Shutting down VM after intercepting ")
# Firecracker's messages at any exit, whatever its reason.
_EXIT_MESSAGES: Final = ("Firecracker exiting ", "Vmm is stopping.")


def rotate_logs(directory: Path) -> None:
    """Start the logs of a new VMM, and keep one older log of an earlier one; the console goes on.

    Firecracker 1.12 wants its log to exist, and writes from the beginning of the file, not at its end
    (open_file_nonblock in its src/vmm/src/utils/mod.rs): the log of another run would be overwritten, and stderr cannot
    share the file.
    """
    discard(directory / PREVIOUS_VMM_LOG)
    with contextlib.suppress(FileNotFoundError):
        (directory / VMM_LOG).rename(directory / PREVIOUS_VMM_LOG)
    discard(directory / STDERR_LOG)
    os.close(os.open(directory / VMM_LOG, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640))


@contextlib.contextmanager
def appended(path: Path) -> Iterator[int]:
    """Open a log that a VMM appends to; raises OSError."""
    fd = open_regular(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    try:
        # The VMM is given it as it is.
        os.set_blocking(fd, True)
        yield fd
    finally:
        os.close(fd)


def last_message(directory: Path) -> str:
    """Return what a VMM said in its last moments, in its log or else on stderr; empty where it said nothing."""
    return _told(next(_last_lines(directory), ""))


def final_message(directory: Path) -> str:
    """Return what a VMM said in its last moments that no VMM says and goes on; empty where it said nothing of the kind.

    A panic's message is on a line of its own, in no record of the log (the hook in Firecracker's
    src/firecracker/src/main.rs); what a runtime says is on stderr; and a signal that it ends at has a record of its own
    (src/vmm/src/signal_handler.rs).
    """
    return _told(next((line for line in _last_lines(directory) if _FINAL.match(line)), ""))


def _last_lines(directory: Path) -> Iterator[str]:
    """Yield the last line that says something of each file that was written in the VMM's last moments."""
    for name in (VMM_LOG, STDERR_LOG):
        for line in reversed(_recent_tail(directory / name).splitlines()):
            message = _PREFIX.sub("", line).strip()
            if message and not message.startswith(_EXIT_MESSAGES):
                yield line
                break


def _told(line: str) -> str:
    return one_line(_PREFIX.sub("", line).strip()[:MESSAGE_LENGTH])


def _recent_tail(path: Path) -> str:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            status = os.fstat(file.fileno())
            # A file is dated by the wall clock, which may have been set since.
            if abs(time.time() - status.st_mtime) > LAST_MOMENTS:
                return ""
            file.seek(max(0, status.st_size - TAIL_BYTES))
            return file.read(TAIL_BYTES).decode(errors="replace")
    except OSError:
        return ""
