"""Checkpoints: a Standby instance made from a Running one, which is paused for the snapshot and runs on."""

import asyncio
import shutil
from pathlib import Path

from supervisor.images import boot_image
from supervisor.models import ForkKind, State
from supervisor.operations.instances import Operations
from supervisor.rules.lifecycle import Intent
from supervisor.runtime.vmms import Machines, Stopwatch
from supervisor.snapshots.layer_files import link
from supervisor.snapshots.layers import Layers, all_names, own_snapshot
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord, child_of
from supervisor.store.registry import StorageError


class Checkpoints:
    """Takes checkpoints; the caller holds the source and has reserved the name."""

    def __init__(self, inventory: Inventory, operations: Operations, machines: Machines, layers: Layers) -> None:
        self._inventory = inventory
        self._operations = operations
        self._machines = machines
        self._layers = layers

    async def take(
        self, source: InstanceRecord, child_id: str, name: str, kind: ForkKind, intent: Intent | None
    ) -> InstanceRecord:
        """Return a new Standby instance with the memory and disks of a Running one, which runs on, also on failure.

        Its first phase is how long the source was paused; `intent` is what its first record says.
        """
        registry = self._inventory.registry
        directory, unborn = registry.directory(source.id), registry.unborn_directory(child_id)
        disks = await asyncio.to_thread(boot_image.writable_disks, directory)
        watch = Stopwatch()

        def copy_disks() -> None:
            try:
                unborn.mkdir(mode=0o750)
                boot_image.copy_disks(directory, unborn, disks)
            except OSError as error:
                raise StorageError(
                    f"{source.name}: its disks cannot be copied: {error.filename}: {error.strerror}; free space in "
                    f"{directory.parent} or make it writable"
                ) from error

        try:
            while_paused = copy_disks if disks else None
            await self._operations.begin_snapshot(source)
            files = await self._machines.checkpoint(source, watch, while_paused)
            base = await self._layers.compact(await self._layers.keep(source, files, {}))
            child = child_of(base, child_id, name, kind).model_copy(
                update={
                    "state": State.STANDBY,
                    "memory_backend": "file",
                    "phases": tuple(watch.phases),
                    "intent": intent,
                }
            )

            def populate(target: Path) -> None:
                boot_image.copy_fixed(directory, target)
                link(all_names(own_snapshot(base)), directory, target)

            await self._inventory.add(child, populate)
        finally:
            await asyncio.to_thread(shutil.rmtree, unborn, ignore_errors=True)
        return child
