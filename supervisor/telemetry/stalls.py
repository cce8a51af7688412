"""Guests that wait too long for a page, seen from outside: by what their VMM's threads wait in. Pure."""

from dataclasses import dataclass

BOUND = 1.0
"""Seconds that one and the same page fault may wait before it is an alarm."""


@dataclass(frozen=True, slots=True)
class Stall:
    """One VM's wait: since when (monotonic seconds) a fault has waited while none was answered."""

    since: float | None = None
    answered: int = 0


def observe(stall: Stall, waits: bool, answered: int, now: float) -> Stall:
    """Return the wait after one more look, at which `answered` faults had been answered in all.

    A guest that faults quickly is seen waiting at every look, and answers in between tell that it goes on.
    """
    if not waits:
        return Stall(None, answered)
    if stall.since is None or answered > stall.answered:
        return Stall(now, answered)
    # Fewer than before: they are counted anew, by another page server.
    return stall if answered == stall.answered else Stall(stall.since, answered)


def age(stall: Stall, now: float) -> float:
    """Return for how many seconds the VM has waited."""
    return 0.0 if stall.since is None else now - stall.since
