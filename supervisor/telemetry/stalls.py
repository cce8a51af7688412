"""Guests that wait too long for a page, seen from outside: by what their VMM's threads wait in, and by what their page
server does meanwhile. Pure.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

from supervisor.models import Stalled

BOUND = 1.0
"""Seconds that one and the same page fault may wait before anybody is told."""
HOPELESS: Final = 10.0
"""Seconds after which it is stuck, whatever its page server does."""
BUSY_SHARE: Final = 0.5
"""Of a wait: a page server that ran for so much of it, or wanted to, works, or has not had the CPU."""
LOOKS: Final = 3
"""Fewer in so long a wait tell of a supervisor that has not had the CPU either."""


class Progress(NamedTuple):
    """Whether a process's main thread goes on: seconds that it ran, and that it wanted to and had no CPU."""

    pid: int
    ran: float
    delayed: float
    major_faults: int
    """Pages that it had to wait for a disk for."""
    state: str
    """Of proc_pid_stat(5)."""

    @property
    def stopped(self) -> bool:
        """Whether it runs only once somebody lets it: a signal, or a debugger."""
        return self.state in "Tt"

    @property
    def goes_on(self) -> bool:
        """Whether it wants to run, or sleeps where no signal wakes it, as who reads a disk does.

        How long it has wanted to is in `delayed` only once it has run again (sched_info_arrive in the kernel's
        kernel/sched/stats.h).
        """
        return self.state in "RD"


@dataclass(frozen=True, slots=True)
class Stall:
    """One VM's wait: since when (monotonic seconds) a fault has waited while none was answered."""

    since: float | None = None
    answered: int = 0
    failed: int = 0
    """Answers that had failed when it began."""
    looks: int = 0
    server: Progress | None = None
    """Its page server when it began."""


def observe(
    stall: Stall, waits: bool, answered: int, now: float, server: Progress | None = None, failed: int = 0
) -> Stall:
    """Return the wait after one more look, at which `answered` faults had been answered in all, and `failed` had not.

    A guest that faults quickly is seen waiting at every look, and answers in between tell that it goes on.
    """
    if not waits:
        return Stall(None, answered)
    if stall.since is None or answered > stall.answered:
        return Stall(now, answered, failed, 1, server)
    # Fewer than before: they are counted anew, by another page server.
    begun = stall.server if server is None or stall.server is None or server.pid == stall.server.pid else server
    return Stall(stall.since, answered, min(failed, stall.failed), stall.looks + 1, begun)


def age(stall: Stall, now: float) -> float:
    """Return for how many seconds the VM has waited."""
    return 0.0 if stall.since is None else now - stall.since


def stalled(stall: Stall, waited: float, server: Progress | None, failed: int) -> Stalled | None:
    """Return whether a guest that has waited for so many seconds is slow or stuck; None where that is not long.

    It is stuck where nobody answers: there is no page server, or it is stopped, sleeps, or its answers fail. It is slow
    while its page server works, waits for the disk, or has not had the CPU: it is yet to come to this fault.
    """
    if waited < BOUND:
        return None
    if server is None or server.stopped or failed > stall.failed or waited >= HOPELESS:
        return "stuck"
    if stall.looks < LOOKS or stall.server is None:
        return "slow"
    busy = (server.ran - stall.server.ran) + (server.delayed - stall.server.delayed)
    goes_on = server.goes_on or server.major_faults > stall.server.major_faults
    return "slow" if goes_on or busy >= BUSY_SHARE * waited else "stuck"
