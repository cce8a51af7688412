"""Guests that are waited for: each from when it runs until it is ready, or its VMM has ended."""

from datetime import UTC, datetime

from supervisor.concurrency.tasks import Background, to_its_end
from supervisor.errors import StorageError
from supervisor.models.base import Report
from supervisor.operations.holding import Holding
from supervisor.runtime.readiness_probes import ReadinessProbes
from supervisor.runtime.vmms import Vmms
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord
from supervisor.system.processes import boot_seconds


class Readying:
    """Notes of instances when they became ready; what has no readiness is not looked at."""

    def __init__(
        self, inventory: Inventory, holding: Holding, vmms: Vmms, probes: ReadinessProbes, report: Report
    ) -> None:
        self._inventory = inventory
        self._holding = holding
        self._vmms = vmms
        self._probes = probes
        self._report = report
        self._tasks = Background("waiting for a guest to be ready")

    def follow(self, record: InstanceRecord) -> None:
        """Wait for the guest of an instance that has come to run, or has been found running."""
        exited = self._vmms.exited(record.id)
        if record.readiness is None or record.ready_at is not None or exited is None:
            return
        task = self._tasks.spawn(self._wait(record, record.readiness))
        exited.add_done_callback(lambda _: task.cancel())

    async def close(self) -> None:
        """Wait no more; the next supervisor does."""
        await self._tasks.cancel()
        await self._probes.close()

    async def _wait(self, record: InstanceRecord, readiness: str) -> None:
        await self._probes.until(record, readiness)
        took = sum(phase.milliseconds for phase in record.phases)
        took += max(boot_seconds() - (record.runs_since or boot_seconds()), 0.0) * 1e3
        # A record that is being written is waited for, though the VMM ends meanwhile.
        await to_its_end(self._note(record, readiness, took))

    async def _note(self, record: InstanceRecord, readiness: str, took: float) -> None:
        told = {"ready_at": datetime.now(UTC), "ready_ms": took}
        async with self._holding.hold_quietly(record.id) as present:
            if present is None or present.process != record.process:
                return
            ready = present.model_copy(update=told)
            try:
                await self._inventory.save(ready)
            except StorageError:
                self._inventory.set_unsaved(ready)
        self._report("info", f"{record.name}: ready after {took / 1e3:.2f} s: {readiness}", record.id)
