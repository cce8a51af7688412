"""What a new supervisor does with what an earlier one left: finds it again, finishes or undoes what was half done."""

import asyncio

from supervisor.errors import SupervisorError
from supervisor.jails.jails import Jails
from supervisor.models.base import Report
from supervisor.operations.endings import explained
from supervisor.operations.readying import Readying
from supervisor.operations.transitions import Transitions
from supervisor.operations.unpausing import Unpausing
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import Recovery
from supervisor.runtime.consoles import Consoles
from supervisor.runtime.orphans import check_run_directory, reap, sweep_run_directory
from supervisor.runtime.page_servers import PageServers
from supervisor.runtime.vmms import Vmms
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord
from supervisor.vmm.process import Exit


class HostRecovery:
    """Done once, before anything may be asked."""

    def __init__(
        self,
        inventory: Inventory,
        transitions: Transitions,
        vmms: Vmms,
        page_servers: PageServers,
        consoles: Consoles,
        jails: Jails,
        unpausing: Unpausing,
        readying: Readying,
        report: Report,
    ) -> None:
        self._inventory = inventory
        self._layout = inventory.layout
        self._transitions = transitions
        self._vmms = vmms
        self._page_servers = page_servers
        self._consoles = consoles
        self._jails = jails
        self._unpausing = unpausing
        self._readying = readying
        self._report = report

    async def recover(self) -> None:
        """Find VMs again; what nobody knows of is ended and removed. Page servers are reconnected after this.

        InvalidStateError, and nothing is done, where the run directory is that of another data directory's VMs.
        """
        inventory = self._inventory
        aside = {*inventory.unreadable, *inventory.unreadable_templates}
        known = {*inventory.instances, *inventory.templates, *aside}
        await asyncio.to_thread(check_run_directory, self._layout, known)
        await self._reap()
        for record in list(inventory.instances.values()):
            try:
                await self._recover(record)
            except (SupervisorError, OSError) as error:
                # One that cannot be seen to is no reason to leave all others alone.
                self._report("alarm", f"{record.name}: left as it was found: {error}", record.id)
        await self._sweep_run_directory()

    async def _reap(self) -> None:
        """End the processes that an earlier supervisor started and had no time to note."""
        inventory, layout = self._inventory, self._layout
        processes = [record.process for record in inventory.instances.values()]
        processes += [template.page_server for template in inventory.templates.values()]

        def end_unknown() -> list[int]:
            directories = {path.name for path in (*layout.instances.iterdir(), *layout.templates.iterdir())}
            known = [process for process in processes if process is not None]
            # The disk may not have taken the name of a page server that serves.
            known += filter(None, map(self._page_servers.listening, inventory.templates))
            known += filter(None, [self._consoles.listening()])
            # Of the others nobody knows what is theirs.
            return reap(layout, known, directories.difference(inventory.instances, inventory.templates))

        pids = await asyncio.to_thread(end_unknown)
        if pids:
            self._report("warning", f"ended processes that no record names: pid {', '.join(map(str, pids))}", None)

    async def _recover(self, record: InstanceRecord) -> None:
        alive = await self._vmms.adopt(record)
        if alive:
            self._readying.follow(record)
        match lifecycle.recovery(record.state, record.intent, alive=alive):
            case Recovery.DISCARD:
                await self._transitions.discard(record)
                self._report("warning", f"{record.name}: its {record.intent} was not finished and is undone", None)
                return
            case Recovery.LOST:
                unseen = Exit(None, None, "ended while no supervisor ran")
                why = await explained(self._layout, record, unseen)
                await self._transitions.ended(record, None, why.text, why.reason, died=why.died)
            case Recovery.AT_REST if record.process is not None or record.intent is not None:
                await self._vmms.terminate(record)
                await self._transitions.settle(record.model_copy(update={"process": None, "intent": None}))
            case Recovery.RUNS if record.snapshot_unfinished:
                # Its VMM may be writing yet.
                self._unpausing.begin(record.id)
                return
        await self._vmms.sweep(record)

    async def _sweep_run_directory(self) -> None:
        inventory = self._inventory
        running = [record for record in inventory.instances.values() if record.process is not None]
        kept = {path for record in running for path in self._layout.run_files(record.id)}
        kept -= {self._layout.page_map(record.id) for record in running if not record.attached}
        kept |= set(map(self._layout.control_socket, (*inventory.templates, *inventory.unreadable_templates)))
        # Of whom nobody knows whether it runs; it goes on until its record is mended.
        kept |= {path for name in inventory.unreadable for path in self._layout.run_files(name)}
        await asyncio.to_thread(sweep_run_directory, self._layout, kept)
        await asyncio.to_thread(self._jails.sweep, {record.id for record in running}.union(inventory.unreadable))
