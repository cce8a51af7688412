"""A host in the test's own process, so that a test can reach in where nobody else can."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from supervisor.host.host import Host
from supervisor.settings import Settings
from tests.harness.supervisor_process import Home


@asynccontextmanager
async def opened_host(home: Home) -> AsyncIterator[Host]:
    """Open a host on a new home; it is closed with the context."""
    for directory in (home.data, home.run):
        directory.mkdir()
    host = await Host.open(
        Settings(data_dir=home.data, run_dir=home.run, hypervisor=home.hypervisor, firecracker=home.firecracker)
    )
    try:
        yield host
    finally:
        await host.close()
