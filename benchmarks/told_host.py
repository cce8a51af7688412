"""A host of its own on a socket, which tells of as many events as it is asked to; `python -m benchmarks.told_host DIR`.

It prints `ready PID`, and reads from standard input how many events are to flow; then it prints `told`.
"""

import asyncio
import contextlib
import os
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from supervisor.api.server import serve
from supervisor.host.host import Host
from supervisor.models import Activity
from supervisor.settings import Settings

DESCRIPTORS: Final = 256
BATCH: Final = 10
"""Events between two turns of others."""


async def run(directory: Path) -> None:
    """Serve until standard input ends."""
    settings = Settings(data_dir=directory, run_dir=directory, hypervisor="embedded")
    host = await Host.open(settings)
    server = await serve(host, settings.socket_path)
    print(f"ready {os.getpid()}", flush=True)
    with contextlib.suppress(EOFError):
        while True:
            await _tell(host, int(await asyncio.to_thread(input)))
            print("told", flush=True)
    await server.close()
    await host.close()


async def _tell(host: Host, count: int) -> None:
    for number in range(count):
        host.events.publish(Activity(at=datetime.now(UTC), level="info", message=f"{number} " + "x" * 200))
        if number % BATCH == 0:
            await asyncio.sleep(0)


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    asyncio.run(run(Path(sys.argv[1])))
