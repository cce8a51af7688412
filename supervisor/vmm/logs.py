"""A VMM's logs in its instance's directory: the guest's console, Firecracker's own log, and stderr."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisor.system.regular_files import discard, open_regular

CONSOLE_LOG: Final = "console.log"
VMM_LOG: Final = "vmm.log"
PREVIOUS_VMM_LOG: Final = "vmm.log.1"
STDERR_LOG: Final = "vmm.stderr"

TAIL_BYTES: Final = 4096
MESSAGE_LENGTH: Final = 400

# What Firecracker's log puts before a message: `2026-01-31T12:00:00.000000000 [instance:thread] `.
_PREFIX: Final = re.compile(r"^\d{4}-\d\d-\d\dT\S+ \[[^\]]*\] ")
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
    """Return a VMM's last message, of its log or else of stderr; empty where there is none."""
    for name in (VMM_LOG, STDERR_LOG):
        lines = (_PREFIX.sub("", line).strip() for line in reversed(_tail(directory / name).splitlines()))
        message = next((line for line in lines if line and not line.startswith(_EXIT_MESSAGES)), "")
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
