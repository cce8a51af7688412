"""A page server that runs and cannot be found: its control socket is gone, and with it the way to it."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from supervisor.runtime.liveness import HANGING_BOUND
from supervisor.store.records import ProcessIdentity
from supervisor.system.processes import open_pidfd
from supervisor.vmm.inotify import creations, until_listening


async def recall(identity: ProcessIdentity, control: Path) -> None:
    """Have it listen again; returns when it does, when it has ended, or when it has not done so in time.

    SIGHUP reaches it without a socket. What it knows nobody else does: which pages its forks have given back.
    """
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(HANGING_BOUND), creations(control.parent) as created:
            if _hang_up(identity):
                await until_listening(control, created)


def _hang_up(identity: ProcessIdentity) -> bool:
    """Send the signal; return whether there is such a process."""
    pidfd = open_pidfd(identity.pid, identity.start_time)
    if pidfd is None:
        return False
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGHUP)
    finally:
        os.close(pidfd)
    return True
