"""Guests that wait too long for a page, seen from outside: by what their VMM's threads wait in."""

from dataclasses import dataclass
from pathlib import Path

BOUND = 1.0
"""Seconds that one and the same page fault may wait before it is an alarm."""
WAIT_CHANNEL = "handle_userfault"
"""The kernel's function in which a thread waits for a page server: fs/userfaultfd.c; proc_pid_wchan(5)."""


def waits_for_page(pid: int) -> bool:
    """Return whether a thread of the process waits for a page server; False where that cannot be seen.

    A vCPU's thread is among them: KVM takes its guest's fault in the thread that runs it.
    """
    try:
        return any(_wait_channel(task) == WAIT_CHANNEL for task in Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return False


def _wait_channel(task: Path) -> str:
    try:
        return (task / "wchan").read_text()
    except OSError:
        return ""


@dataclass(frozen=True, slots=True)
class Stall:
    """One VM's wait: since when (monotonic seconds) a fault has waited while none was answered."""

    since: float | None = None
    answered: int = 0


def observe(stall: Stall, waits: bool, answered: int, now: float) -> Stall:
    """Return the wait after one more look, at which `answered` faults had been answered in all. Pure.

    A guest that faults quickly is seen waiting at every look, and answers in between tell that it goes on.
    """
    if not waits:
        return Stall(None, answered)
    if stall.since is None or answered != stall.answered:
        return Stall(now, answered)
    return stall


def age(stall: Stall, now: float) -> float:
    """Return for how many seconds the VM has waited."""
    return 0.0 if stall.since is None else now - stall.since
