"""Whom the kernel ends first when memory runs out: VMMs, then page servers, and the supervisor last.

A value of oom_score_adj is added to what a process has, as thousandths of all the memory that may be had: of the host,
or of the cgroup whose limit was met (proc_pid_oom_score_adj(5)). A child inherits it, so that each is given its own,
and by its parent once it runs: code between fork and exec would cost a VMM's start more than this does.
"""

import contextlib
import functools
import logging
import os
from typing import Final, NamedTuple

from supervisor.system.processes import proc_file

SUPERVISOR: Final = -900
"""Without it no page server is replaced and no VM ended. Not -1000, which is never: VMs go on without a supervisor that
takes all memory, and another one finds them."""
PAGE_SERVER: Final = -800
"""Its forks stand still until another one has taken over, and an image that it has mapped counts as its own memory."""
VMM: Final = 500
"""One guest is lost, and that is told. Not the most: a stranger that has over half of the memory goes before VMs."""
VMM_ABOVE: Final = 800
"""By how much at least VMMs are above a supervisor that could not be lowered: a small group's limit is soon a small
multiple of what the supervisor has, and that of a page server with a mapped image."""
MOST: Final = 1000

_log = logging.getLogger(__name__)


class Scores(NamedTuple):
    """What each kind of process has, and why that is not what it should be."""

    supervisor: int
    page_servers: int
    vmms: int
    problem: str | None = None


def protect() -> None:
    """Have this process ended last, as far as its user may ask for that."""
    scores.cache_clear()
    if scores().problem is not None:
        with contextlib.suppress(OSError):
            _write("self", SUPERVISOR)
        scores.cache_clear()


def tell() -> None:
    """Have the log say where this process could not be protected."""
    if scores().problem is not None:
        _log.warning("%s", scores().problem)


@functools.cache
def scores() -> Scores:
    """Return what each kind is to have beside this process."""
    try:
        own = int(proc_file("self", "oom_score_adj"))
    except (OSError, ValueError) as error:
        return Scores(0, 0, VMM, f"oom_score_adj cannot be read: {error}")
    return beside(own)


def beside(own: int) -> Scores:
    """Return what each kind is to have beside a supervisor that has this: nothing less than it, and VMMs far more."""
    problem = None
    if own > SUPERVISOR:
        why = "CAP_SYS_RESOURCE, or OOMScoreAdjust= in its systemd unit, would allow that"
        problem = f"oom_score_adj of the supervisor is {own}, and cannot be set to {SUPERVISOR}: {why}"
    return Scores(own, max(own, PAGE_SERVER), min(max(VMM, own + VMM_ABOVE), MOST), problem)


def give_way(pid: int) -> None:
    """Have a VMM ended before all that is ours otherwise; never raises."""
    _give(pid, scores().vmms)


def serve_on(pid: int) -> None:
    """Have what guests need, as a page server, ended after VMMs and before the supervisor; never raises."""
    _give(pid, scores().page_servers)


def _give(pid: int, value: int) -> None:
    # Its own score is what `protect` has made of it.
    if pid == os.getpid():
        return
    try:
        _write(pid, value)
    except (FileNotFoundError, ProcessLookupError):
        return  # it has ended
    except OSError as error:
        _tell_once(error.errno or 0)


@functools.cache
def _tell_once(number: int) -> None:
    _log.warning("oom_score_adj of what the supervisor starts cannot be set: %s", os.strerror(number))


def _write(pid: int | str, value: int) -> None:
    fd = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    finally:
        os.close(fd)
