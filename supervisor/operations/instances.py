"""The verbs on one existing instance."""

import asyncio

from supervisor.errors import InvalidStateError, PageServerError
from supervisor.models import State
from supervisor.models.base import Report
from supervisor.operations.endings import explained
from supervisor.operations.holding import Holding
from supervisor.operations.snapshots import Snapshots
from supervisor.operations.transitions import Transitions
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import HAS_VMM, Verb
from supervisor.runtime.page_servers import PageServers
from supervisor.runtime.templates import Templates
from supervisor.runtime.vmms import Vmms
from supervisor.snapshots.layer_files import remove
from supervisor.snapshots.layers import all_names, snapshot_type
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord, let_go
from supervisor.uffd.map_files import remove_page_map
from supervisor.vmm.process import Exit


class ForkedMeanwhileError(InvalidStateError):
    """What was to be deleted as the last of its tree has a fork."""


class Instances:
    """Start, stop, standby, restore, detach, delete; and what a VMM does by itself."""

    def __init__(
        self,
        inventory: Inventory,
        holding: Holding,
        transitions: Transitions,
        snapshots: Snapshots,
        vmms: Vmms,
        templates: Templates,
        page_servers: PageServers,
        report: Report,
    ) -> None:
        self._inventory = inventory
        self._holding = holding
        self._transitions = transitions
        self._snapshots = snapshots
        self._vmms = vmms
        self._templates = templates
        self._page_servers = page_servers
        self._report = report

    async def start(self, reference: str) -> InstanceRecord:
        """Boot a Stopped instance from its vm.json."""
        async with self._holding.hold(reference, Verb.START) as record:
            self._holding.check(Verb.START, record)
            async with self._transitions.intending(record, "start") as starting:
                return await self._transitions.boot(starting)

    async def stop(self, reference: str) -> InstanceRecord:
        """End an instance's VMM; its memory is lost."""
        async with self._holding.hold(reference, Verb.STOP) as record:
            self._holding.check(Verb.STOP, record)
            return await self._transitions.end(record)

    async def standby(self, reference: str) -> InstanceRecord:
        """Snapshot a Running instance and end its VMM."""
        async with self._holding.hold(reference, Verb.STANDBY) as record:
            self._holding.check(Verb.STANDBY, record)
            return await self._snapshots.standby(record)

    async def restore(self, reference: str) -> InstanceRecord:
        """Run a Standby instance on from its snapshot; un-promotes it, since no fork holds it."""
        async with self._holding.hold(reference, Verb.RESTORE) as record:
            self._holding.check(Verb.RESTORE, record)
            lifecycle.check_backend(Verb.RESTORE, record.name, record.huge_pages > 0, record.memory_backend)
            await self._vmms.check_loads(record)
            await self._vmms.check_machine(record, record.snapshot)
            async with self._transitions.intending(record, "restore") as restoring:
                await self._templates.unpromote(record.id)
                return await self._transitions.load(restoring)

    async def detach(self, reference: str) -> InstanceRecord:
        """Let a share_memory fork go on by itself, and release its share of its source's lock; the guest never stops.

        A uffd fork that runs gets all of its pages first. Whatever fails before the record is written changes nothing.
        """
        async with self._holding.hold(reference, Verb.DETACH) as record:
            lifecycle.check_detach(record.name, record.state, record.fork_kind)
            served = record.process is not None and record.served_over_uffd
            if served:
                await self._populate(record)
            detached = await self._inventory.save(_detached(record))
            self._transitions.tell_let_go(record, detached)
            if served:
                await self._page_servers.release(record)
                remove_page_map(self._inventory.layout.page_map(record.id))
            if detached.snapshot is None:
                directory = self._inventory.layout.instance(record.id)
                await asyncio.to_thread(remove, directory, all_names(record.snapshot))
            return detached

    async def delete(self, reference: str, *, childless: bool = False) -> None:
        """Remove an instance that no fork holds, whatever its state; with `childless` also no copy may be below it."""
        async with self._holding.hold(reference, Verb.DELETE) as record:
            if childless and (below := self._inventory.forest.children.get(record.id)):
                newest = self._inventory.instances[below[-1]].name
                raise ForkedMeanwhileError(f"{record.name}: delete refused: {newest} was forked from it meanwhile")
            self._holding.check(Verb.DELETE, record)
            await self._templates.unpromote(record.id)
            await self._transitions.discard(record)
        self._report("info", f"{record.name}: deleted", record.id)

    async def on_exit(self, instance_id: str, exit_status: Exit) -> None:
        """Record that a VMM ended by itself, or by its guest's doing; an alarm unless its guest wanted that."""
        async with self._holding.hold_quietly(instance_id) as record:
            if record is None or record.state not in HAS_VMM or self._vmms.runs(instance_id):
                return
            if record.attached:
                await self._page_servers.release(record)
            why = await explained(self._inventory.layout, record, exit_status)
            await self._transitions.ended(record, exit_status.code, why.text, why.reason, died=why.died)
        self._report("alarm" if why.died else "info", f"{record.name}: {why.told}", instance_id, shown=True)

    async def on_ready(self, instance_id: str) -> None:
        """Record that a guest has finished its boot."""
        async with self._holding.hold_quietly(instance_id) as record:
            if record is not None and record.state is State.INITIALIZING:
                await self._inventory.save(record.model_copy(update={"state": State.RUNNING}))

    async def _populate(self, record: InstanceRecord) -> None:
        try:
            await self._page_servers.populate(record)
        except PageServerError as error:
            raise PageServerError(
                f"{record.name}: detach abandoned, it is as it was: {error.message}; ask again"
            ) from error


def _detached(record: InstanceRecord) -> InstanceRecord:
    """Return a share_memory fork as it is without its source; a directory has names of its own for all layers."""
    free: dict[str, object] = {}
    if record.process is not None:
        free |= {"memory_backend": None}
        if snapshot_type(record) == "Full":
            # Only a diff layer would need the snapshot that it came from.
            free |= {"snapshot": None}
    elif record.state is State.STANDBY:
        free |= {"memory_backend": "file"}
    return let_go(record, "detached").model_copy(update=free)
