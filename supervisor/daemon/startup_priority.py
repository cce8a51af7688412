"""A supervisor that starts goes first: VMs that compute would leave it so little of the cores that it took seconds."""

import contextlib
import os
from pathlib import Path
from typing import Final

FIRST: Final = -20
"""sched(7): the highest nice value there is, of a thread and of an autogroup."""
USUAL: Final = 0
"""sched(7): what a thread and an autogroup have that nobody gave another."""
AUTOGROUP: Final = Path("/proc/self/autogroup")
"""Where the kernel groups by session, a thread's nice value counts only within its session: sched(7)."""


class StartupPriority:
    """Runs before all others from the beginning until `end`, where this user may.

    What is spawned after `spare_children`, in a session of its own, does not.
    """

    def __init__(self) -> None:
        self._nice = _own(os.getpriority(os.PRIO_PROCESS, 0))
        self._autogroup = _own(_autogroup())
        self._threads = self._session = True
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, 0, FIRST)
            AUTOGROUP.write_text(str(FIRST))

    def spare_children(self) -> None:
        """Let every thread be as before: each has a nice value of its own, and hands it on (setpriority(2))."""
        if not self._threads:
            return
        self._threads = False
        for task in os.listdir("/proc/self/task"):  # noqa: PTH208 - names that are numbers
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, int(task), self._nice)

    def end(self) -> None:
        """Be as before altogether."""
        self.spare_children()
        if not self._session:
            return
        self._session = False
        with contextlib.suppress(OSError):
            AUTOGROUP.write_text(str(self._autogroup))


def _own(nice: int) -> int:
    """Return the nice value to go back to: FIRST is another start's, which overlaps or was killed before its end."""
    return USUAL if nice == FIRST else nice


def _autogroup() -> int:
    """Return the nice value of this session's autogroup."""
    try:
        # "/autogroup-25 nice 0": proc_sched_autogroup_show_task in kernel/sched/autogroup.c.
        return int(AUTOGROUP.read_text().split()[-1])
    except (OSError, IndexError, ValueError):
        return USUAL
