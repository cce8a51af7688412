"""Lets VMs go on that a snapshot which came to nothing may have left paused."""

import asyncio

from supervisor.concurrency.progress import uncancelled
from supervisor.errors import NotFoundError, StoppingError, VmmError, VmmSilentError
from supervisor.models.base import Report
from supervisor.operations.holding import Holding
from supervisor.rules.lifecycle import HAS_VMM
from supervisor.runtime.vmms import Vmms
from supervisor.vmm.api_client import QUICK


class Unpausing:
    """One task for each such VM; a VMM answers nothing while it still writes, and what it writes may be large."""

    def __init__(self, holding: Holding, vmms: Vmms, report: Report) -> None:
        self._holding = holding
        self._vmms = vmms
        self._report = report
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def begin(self, instance_id: str) -> None:
        """Ask the instance's VMM to let its VM go on until it does, or another verb has made something else of it."""
        if instance_id not in self._tasks:
            # No part of the operation that came to nothing: that may be cancelled, and this is not.
            with uncancelled():
                task = self._tasks[instance_id] = asyncio.create_task(self._unpause(instance_id))
            task.add_done_callback(lambda _: self._tasks.pop(instance_id))

    async def close(self) -> None:
        """Leave it to the next supervisor."""
        tasks = tuple(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _unpause(self, instance_id: str) -> None:
        told = False
        while True:
            try:
                # Held for one try: stop and delete do without the VMM's answer, and get their turn after it.
                async with self._holding.hold(instance_id, "unpause") as record:
                    if record.state in HAS_VMM and record.snapshot_unfinished:
                        await self._vmms.resume(instance_id, seconds=QUICK)
                        await self._vmms.sweep(record)
                return
            except (NotFoundError, StoppingError):
                return
            except VmmSilentError as error:
                if not told:
                    self._report("alarm", f"{error.message}; it may be paused until it does", instance_id)
                told = True
            except VmmError as error:
                if self._vmms.runs(instance_id):
                    self._report("alarm", f"{error.message}; it may be paused", instance_id)
                return
