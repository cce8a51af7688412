"""Whether the kernel ended a process because memory ran out, as its log tells. Blocks on that."""

import contextlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from supervisor.system.processes import age_of

KERNEL_LOG: Final = Path("/dev/kmsg")
LARGEST_RECORD: Final = 1 << 13
"""CONSOLE_EXT_LOG_MAX in include/linux/console.h: a smaller buffer is refused."""
SLACK_SECONDS: Final = 1.0
"""By which the log's clock (local_clock) may differ from the monotonic one."""

_RECORD: Final = re.compile(r"[0-7],[0-9]+,([0-9]+),[^;]*;(.*)")
"""Of the kernel itself: what is written into its log by others has a facility, in the bits above."""
_CHOSEN: Final = re.compile(r"oom-kill:constraint=(\w+),.*?(?:oom_memcg=(.*?),)?task_memcg=.*,pid=([0-9]+),uid=[0-9]+")
"""Written for each choice, but not for more than ten in five seconds: dump_oom_victim in mm/oom_kill.c."""
_KILLED: Final = re.compile(r"(Memory cgroup out|Out) of memory: Killed process ([0-9]+) ")
"""Written for each process that is killed, in the same file."""


def out_of_memory(pid: int, start_time: int, log: Path = KERNEL_LOG) -> str | None:
    """Return in words that the kernel ended a process that began then, for want of memory, and of whose.

    None where the log does not say so, where it cannot be read, and where its pids are not those of this namespace.
    """
    # By the monotonic clock, to which the log's is next; a suspension meanwhile makes it earlier, and does no harm.
    began = time.monotonic() - age_of(start_time) - SLACK_SECONDS
    group, told = None, None
    with contextlib.suppress(OSError):
        for seconds, text in _records(log):
            if seconds < began:
                continue
            if (chosen := _CHOSEN.match(text)) and int(chosen[3]) == pid:
                group = chosen[2]
            if (killed := _KILLED.match(text)) and int(killed[2]) == pid:
                whose = "the host has" if killed[1] == "Out" else f"its cgroup {group or ''} has".replace("  ", " ")
                told = f"out of memory: {whose} none left, and the kernel chose it"
    return told


def _records(log: Path) -> Iterator[tuple[float, str]]:
    """Yield the kernel's log, the oldest first: when (seconds) and what."""
    fd = os.open(log, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        while True:
            try:
                record = os.read(fd, LARGEST_RECORD)
            except BlockingIOError:
                return
            except BrokenPipeError:
                continue  # it was overwritten before it was read; the next is the oldest that is left
            if not record:
                return
            # Lines after the first are of a dictionary: Documentation/ABI/testing/dev-kmsg.
            found = _RECORD.match(record.decode(errors="backslashreplace"))
            if found:
                yield int(found[1]) / 1e6, found[2]
    finally:
        os.close(fd)
