"""What a process uses and what it waits for, as /proc tells. Blocks on /proc."""

import contextlib
import os
from typing import Final, NamedTuple

from supervisor.system.processes import proc_file, stat_fields
from supervisor.telemetry.stalls import Progress

PAGE_SIZE: Final = os.sysconf("SC_PAGE_SIZE")
CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
WAIT_CHANNEL: Final = b"handle_userfault"
"""The kernel's function in which a thread waits for a page server: fs/userfaultfd.c; proc_pid_wchan(5)."""


class Usage(NamedTuple):
    """What a process has used so far: cheap to read, and as long as it is the same the process has not run."""

    page_faults: int
    cpu_ticks: int
    rss_pages: int

    @property
    def cpu_seconds(self) -> float:
        """Processor time, in user and in kernel mode."""
        return round(self.cpu_ticks / CLOCK_TICKS, 2)

    @property
    def rss_bytes(self) -> int:
        """Resident memory, as the kernel keeps count of it: it may lag behind by some pages for each core."""
        return self.rss_pages * PAGE_SIZE


class Memory(NamedTuple):
    """What smaps_rollup sums up, in bytes; private and shared are its Private_* and Shared_* (proc_pid_smaps(5))."""

    rss_bytes: int = 0
    private_bytes: int = 0
    shared_bytes: int = 0


def usage(pid: int) -> Usage | None:
    """Return what a process has used; None where it has ended."""
    try:
        fields = stat_fields(pid)
    except OSError:
        return None
    # minflt, majflt, utime, stime and rss are the fields 10, 12, 14, 15 and 24 of proc_pid_stat(5).
    return Usage(int(fields[7]) + int(fields[9]), int(fields[11]) + int(fields[12]), int(fields[21]))


def progress(pid: int) -> Progress | None:
    """Return whether a process goes on; None where it has ended.

    Seconds are those of schedstat (Documentation/scheduler/sched-stats.rst), of stat where there is none.
    """
    try:
        fields = stat_fields(pid)
    except OSError:
        return None
    ran, delayed = (int(fields[11]) + int(fields[12])) / CLOCK_TICKS, 0.0
    with contextlib.suppress(OSError, ValueError, IndexError):
        told = proc_file(pid, "schedstat").split()
        ran, delayed = int(told[0]) / 1e9, int(told[1]) / 1e9
    state = fields[0].decode()
    return None if state in "ZX" else Progress(pid, ran, delayed, int(fields[9]), state)


def memory(pid: int) -> Memory:
    """Return a process's memory; zeros where it has ended. It walks the page tables of the whole process."""
    try:
        lines = proc_file(pid, "smaps_rollup").splitlines()[1:]
    except OSError:
        return Memory()
    rss = private = shared = 0
    for line in lines:
        if line.startswith(b"Rss:"):
            rss = _bytes(line)
        elif line.startswith(b"Private_"):
            private += _bytes(line)
        elif line.startswith(b"Shared_"):
            shared += _bytes(line)
    return Memory(rss, private, shared)


def waits_for_page(pid: int) -> bool:
    """Return whether a thread of the process waits for a page server; False where that cannot be seen.

    A vCPU's thread is among them: KVM takes its guest's fault in the thread that runs it.
    """
    try:
        return any(_wait_channel(pid, task) == WAIT_CHANNEL for task in os.listdir(f"/proc/{pid}/task"))  # noqa: PTH208
    except OSError:
        return False


def _wait_channel(pid: int, task: str) -> bytes:
    try:
        return proc_file(pid, f"task/{task}/wchan")
    except OSError:
        return b""


def _bytes(line: bytes) -> int:
    return int(line.split()[1]) * 1024
