"""What a new supervisor does with what an earlier one left: finds it again, finishes or undoes what was half done."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from supervisor.errors import SupervisorError
from supervisor.models import Level
from supervisor.operations.instances import Operations
from supervisor.operations.unpausing import RunningOn
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import Recovery
from supervisor.runtime.orphans import check_run_directory, reap, sweep_run_directory
from supervisor.runtime.page_servers import PageServers
from supervisor.runtime.vmms import Machines
from supervisor.snapshots.layer_files import sweep
from supervisor.snapshots.layers import all_names
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord


class Adoption:
    """Done once, before anything may be asked."""

    def __init__(
        self,
        inventory: Inventory,
        operations: Operations,
        machines: Machines,
        page_servers: PageServers,
        running_on: RunningOn,
        data_dir: Path,
        run_dir: Path,
        report: Callable[[Level, str, str | None], None],
    ) -> None:
        self._inventory = inventory
        self._operations = operations
        self._machines = machines
        self._page_servers = page_servers
        self._running_on = running_on
        self._data_dir = data_dir
        self._run_dir = run_dir
        self._report = report

    async def adopt(self) -> None:
        """Find VMs again; what nobody knows of is ended and removed. Page servers are reconnected after this.

        InvalidStateError, and nothing is done, where the run directory is that of another data directory's VMs.
        """
        inventory = self._inventory
        known = {*inventory.instances, *inventory.templates, *inventory.unreadable}
        await asyncio.to_thread(check_run_directory, self._run_dir, self._data_dir, known)
        await self._reap()
        for record in list(inventory.instances.values()):
            try:
                await self._recover(record)
            except SupervisorError as error:
                # One that cannot be seen to is no reason to leave all others alone.
                self._report("alarm", f"{record.name}: left as it was found: {error.message}", record.id)
        await self._sweep_run_directory()

    async def _reap(self) -> None:
        """End the processes that an earlier supervisor started and had no time to note."""
        inventory = self._inventory
        processes = [record.process for record in inventory.instances.values()]
        processes += [template.page_server for template in inventory.templates.values()]

        def end_unknown() -> list[int]:
            templates = {path.name for path in inventory.registry.templates.iterdir()}.difference(inventory.templates)
            known = [process for process in processes if process is not None]
            # The disk may not have taken the name of a page server that serves.
            known += filter(None, map(self._page_servers.listening, inventory.templates))
            return reap(self._data_dir, known, templates.union(inventory.unreadable))

        pids = await asyncio.to_thread(end_unknown)
        if pids:
            self._report("warning", f"ended processes that no record names: pid {', '.join(map(str, pids))}", None)

    async def _recover(self, record: InstanceRecord) -> None:
        alive = await self._machines.adopt(record)
        directory = self._inventory.registry.directory(record.id)
        await asyncio.to_thread(sweep, directory, all_names(record.snapshot))
        match lifecycle.recovery(record.state, record.intent, alive=alive):
            case Recovery.DISCARD:
                await self._operations.discard(record)
                self._report("warning", f"{record.name}: its {record.intent} was not finished and is undone", None)
            case Recovery.LOST:
                await self._operations.ended(record, None, "ended while no supervisor ran")
            case Recovery.AT_REST if record.process is not None or record.intent is not None:
                await self._machines.terminate(record)
                await self._operations.settle(record.model_copy(update={"process": None, "intent": None}))
            case Recovery.RUNS if record.snapshot_unfinished:
                self._running_on.begin(record.id)

    async def _sweep_run_directory(self) -> None:
        inventory = self._inventory
        running = [record for record in inventory.instances.values() if record.process is not None]
        kept = {path for record in running for path in self._machines.run_files(record.id)}
        kept -= {self._page_servers.page_map(record.id) for record in running if not record.attached}
        kept |= set(map(self._page_servers.control, inventory.templates))
        # Of whom nobody knows whether it runs; it goes on until its record is mended.
        kept |= {path for name in inventory.unreadable for path in self._machines.run_files(name)}
        await asyncio.to_thread(sweep_run_directory, self._run_dir, kept)
