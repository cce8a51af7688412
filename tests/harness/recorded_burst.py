"""A fan-out as a real supervisor told it while it went on, for pictures that must come out the same every time.

`python -m tests.harness.recorded_burst SOCKET` plays it on an empty supervisor that listens there and writes the
recording anew.
"""

import asyncio
import sys
import time
from pathlib import Path
from typing import Final

from forktui.client.api import SupervisorClient
from supervisor.models import (
    CreateRequest,
    Event,
    FanOutChanged,
    FanOutRequest,
    ForkRequest,
    Reset,
    State,
    TemplateChanged,
)
from tests.harness.checkout import ROOT
from tests.harness.recorded_supervisor import CELLS, Recording, moved

BURST: Final = ROOT / "tests" / "pictures" / "burst.json"
FORKS: Final = FanOutRequest(count=24, concurrency=4, name_prefix="web")
WARM_UP: Final = ForkRequest(name="warm-up", share_memory=True, target_state="Running")
SECONDS: Final = 120.0


def until_made(recording: Recording, forks: int) -> tuple[Event, ...]:
    """The events of a recording until its fan-out has made so many forks."""
    for number, event in enumerate(recording.events, 1):
        if isinstance(event, FanOutChanged) and event.fan_out.operation.done >= forks:
            return recording.events[:number]
    raise AssertionError(f"no fan-out was recorded that made {forks} forks")


async def record(socket: Path) -> Recording:
    """Play the fan-out on the supervisor that listens on `socket`, and record it."""
    events: list[Event] = []
    async with SupervisorClient(socket) as client, asyncio.timeout(SECONDS):
        await client.create(CreateRequest(name="source", image="pagewalker", size="128MB"))
        await client.wait("source", State.RUNNING, SECONDS)
        await client.standby("source")
        await client.fork("source", WARM_UP)
        making: asyncio.Task[object] | None = None
        async for _, event in client.events():
            if making is not None:
                events.append(moved(event))
                if isinstance(event, FanOutChanged) and event.fan_out.operation.outcome is not None:
                    break
            elif isinstance(event, TemplateChanged) and event.template.recorded_pages:
                making = asyncio.create_task(client.fan_out("source", FORKS))
                events.append(moved(Reset(snapshot=await client.snapshot())))
        assert making is not None
        await making
        clock = time.clock_gettime(time.CLOCK_BOOTTIME)
        folds = [await client.memory(name, CELLS) for name in ("warm-up", "web-1")]
        await client.delete("source", cascade=True)
    return Recording(clock, tuple(events), {fold.id: fold for fold in folds})


if __name__ == "__main__":
    asyncio.run(record(Path(sys.argv[1]))).save(BURST)
