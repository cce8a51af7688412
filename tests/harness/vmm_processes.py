"""Waiting for the end of a VMM's process."""

import asyncio
from pathlib import Path

from supervisor.vmm.driver import Vmm
from supervisor.vmm.process import Exit

TIMEOUT = 30.0


async def exit_of(vmm: Vmm) -> Exit:
    """Wait for a VMM's end."""
    return await asyncio.wait_for(asyncio.shield(vmm.exited), TIMEOUT)


def is_gone(pid: int) -> bool:
    """Return whether there is no such process, not even a zombie."""
    return not Path(f"/proc/{pid}").exists()
