"""A page server that runs and cannot be found: its control socket is gone, and with it the way to it."""

import asyncio
import contextlib
import os
import signal
from pathlib import Path

from supervisor.runtime.liveness import HANGING_BOUND
from supervisor.store.records import ProcessIdentity
from supervisor.system.processes import open_pidfd
from supervisor.uffd.putting_back import listen_again
from supervisor.vmm.inotify import creations, until_listening


async def recall(identity: ProcessIdentity, control: Path, *, confined: bool) -> None:
    """Have it listen again; returns when it does, when it has ended, or when it has not done so in time.

    What it knows nobody else does: which pages its forks have given back. One that is `confined` may be traced by whom
    it is to hear, and is handed a socket; any other is sent SIGHUP, and makes one.
    """
    if confined:
        with contextlib.suppress(OSError, ValueError):
            await asyncio.to_thread(_hand_socket, identity, control)
        return
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(HANGING_BOUND), creations(control.parent) as created:
            if _hang_up(identity):
                await until_listening(control, created)


def _hand_socket(identity: ProcessIdentity, control: Path) -> None:
    pidfd = open_pidfd(identity.pid, identity.start_time)
    if pidfd is not None:
        try:
            listen_again(pidfd, control, HANGING_BOUND)
        finally:
            os.close(pidfd)


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
