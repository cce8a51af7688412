"""Processes, as /proc and pidfds show them: known again by pid and start time, killed, waited for.

Standard library only, and nothing that a process per VM or per template would be slow to import. Thousands of looks a
minute are to cost next to nothing: hence no pathlib.
"""

import contextlib
import errno
import functools
import os
import select
import signal
import time
from collections.abc import Iterable
from typing import Final

KILL_TIMEOUT: Final = 10.0
"""Seconds; a process that is still there after SIGKILL waits in the kernel for a device that does not answer."""

_PF_KTHREAD: Final = 0x00200000
"""include/linux/sched.h, of the flags that are field 9 of proc_pid_stat(5)."""
_READ: Final = 1 << 16
"""More than any of the files has that are read here."""
_LAST_FIELD: Final = 22
_CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PID_MAX_LIMIT: Final = 1 << 22
"""No pid is as large: include/linux/threads.h."""


def proc_file(pid: int | str, name: str) -> bytes:
    """Return the contents of a file in /proc/<pid>; raises OSError, as where the process has ended."""
    fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _READ)
    finally:
        os.close(fd)


def stat_fields(pid: int) -> list[bytes]:
    """Return the fields of /proc/<pid>/stat from its third on: field N of proc_pid_stat(5) is the item N - 3.

    Those after the 24th are one item. Raises OSError where the process is gone.
    """
    stat = proc_file(pid, "stat")
    # The second field is the program's name in parentheses, and may hold anything.
    return stat[stat.rindex(b")") + 2 :].split(b" ", _LAST_FIELD)


def start_time_of(pid: int) -> int:
    """Return when a process started, in clock ticks since boot (field 22 of its stat); raises OSError without it.

    With the pid it names the process for as long as the host is up.
    """
    return int(stat_fields(pid)[19])


def status_field(pid: int | str, name: str) -> str | None:
    """Return what /proc/<pid>/status says of a name, or None where it has no such line; raises OSError."""
    for line in proc_file(pid, "status").decode(errors="replace").splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return value.strip()
    return None


def is_kernel_thread(pid: int) -> bool:
    """Return whether a process is the kernel's own, and so has no memory and cannot be killed; False where it is gone.

    KVM has such, of a VMM, in that VMM's cgroups: kvm-pit and kvm-nx-lpage-recovery.
    """
    try:
        return bool(int(stat_fields(pid)[6]) & _PF_KTHREAD)
    except OSError:
        return False


def cpu_wait_seconds(pid: int) -> float:
    """Return for how long a process has been ready to run and had no CPU (the second of its schedstat's numbers).

    Of its first thread; 0 where the process is gone, or the kernel does not count it.
    """
    try:
        return int(proc_file(pid, "schedstat").split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0


@functools.cache
def boot_id() -> str:
    """Return what names the present boot of the host: no pid or start time means the same in another one."""
    return proc_file("sys/kernel/random", "boot_id").decode().strip()


def boot_seconds() -> float:
    """Return the seconds since boot, suspension included: whoever sets the wall clock does not move them."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def age_of(start_time: int) -> float:
    """Return for how many seconds a process has been there that started at `start_time` of the present boot."""
    # Field 22 of proc_pid_stat(5) is of the boot clock: do_task_stat in fs/proc/array.c.
    return max(boot_seconds() - start_time / _CLOCK_TICKS, 0.0)


def open_pidfd(pid: int, start_time: int) -> int | None:
    """Return a pidfd of the process that started then; None where it has ended. Raises OSError without a descriptor."""
    if not 0 < pid < _PID_MAX_LIMIT:
        return None
    try:
        # Opened before the start time is read: if they match, it cannot be a later process with the same pid.
        pidfd = os.pidfd_open(pid)
    except OSError as error:
        # ESRCH, and ENOENT or EINVAL where the pid has become a thread's: the process is gone.
        if error.errno in (errno.EMFILE, errno.ENFILE):
            raise
        return None
    try:
        alive = start_time_of(pid) == start_time and not has_ended(pidfd)
    except (FileNotFoundError, ProcessLookupError):
        alive = False
    except OSError:
        os.close(pidfd)
        raise
    if not alive:
        os.close(pidfd)
        return None
    return pidfd


def has_ended(pidfd: int) -> bool:
    """Return whether a process has ended; it may wait for its parent to reap it."""
    # Not by select(2), which takes no descriptor from 1024 on: a supervisor of many VMs has those.
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def kill(pidfd: int) -> None:
    """Send SIGKILL; one that has been reaped is let alone."""
    with contextlib.suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def wait_for_ends(pidfds: Iterable[int], seconds: float) -> None:
    """Block until all of these processes have ended, or `seconds` have passed."""
    poll = select.poll()
    left = set(pidfds)
    for pidfd in left:
        poll.register(pidfd, select.POLLIN)
    deadline = time.monotonic() + seconds
    while left and (remaining := deadline - time.monotonic()) > 0:
        # Readable once it is a zombie: whoever is to reap it may take its time.
        for pidfd, _ in poll.poll(remaining * 1e3):
            poll.unregister(pidfd)
            left.discard(pidfd)
