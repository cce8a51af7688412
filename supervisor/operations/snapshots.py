"""Snapshots of a Running instance: for its own standby, or for a checkpoint of it, which is another instance."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from supervisor.concurrency.progress import step
from supervisor.errors import StorageError
from supervisor.images.machine_files import copy_disks, copy_fixed, memory_sizes, writable_disks
from supervisor.images.readiness import own_disk_marks
from supervisor.models import ForkKind, State
from supervisor.operations.transitions import Transitions
from supervisor.runtime.stopwatch import Stopwatch
from supervisor.runtime.vmms import Vmms
from supervisor.snapshots.layer_files import link
from supervisor.snapshots.layers import Layers, all_names, own_snapshot
from supervisor.snapshots.written_files import keep
from supervisor.store.inventory import Inventory
from supervisor.store.layout import staged
from supervisor.store.records import NOT_READY, InstanceRecord, child_of


class Snapshots:
    """Takes snapshots; the caller holds the instance. Whatever fails, the VM runs on."""

    def __init__(self, inventory: Inventory, transitions: Transitions, vmms: Vmms, layers: Layers) -> None:
        self._inventory = inventory
        self._transitions = transitions
        self._vmms = vmms
        self._layers = layers

    async def standby(self, record: InstanceRecord) -> InstanceRecord:
        """Bring a Running instance to Standby."""
        changes = {"state": State.STANDBY, "attached": False, "memory_backend": "file", **NOT_READY}
        standby = await self._take(record, changes, runs_on=False)
        await self._vmms.terminate(record)
        standby = await self._transitions.settle(standby.model_copy(update={"process": None}))
        return await self._layers.compact(standby)

    async def checkpoint(
        self, source: InstanceRecord, child_id: str, name: str, kind: ForkKind, given: Mapping[str, Any]
    ) -> InstanceRecord:
        """Return a new Standby instance with the memory and disks of a Running one, which runs on.

        Its name is reserved. Its first phase is how long the source was paused; `given` is what its first record says
        beside that.
        """
        directory = self._inventory.layout.instance(source.id)
        staging = staged(self._inventory.layout.instance(child_id))
        disks = await asyncio.to_thread(writable_disks, directory)
        watch = Stopwatch()
        try:
            copies = partial(_copy_disks, source.name, directory, staging, disks) if disks else None
            snapshotted = await self._take(source, {}, runs_on=True, watch=watch, while_paused=copies)
            base = await self._layers.compact(snapshotted)
            changes = {"state": State.STANDBY, "memory_backend": "file", "phases": tuple(watch.phases)}
            child = child_of(base, child_id, name, kind).model_copy(update={**changes, **given})
            if child.intent is not None:
                child = await self._vmms.housed(child, directory)

            def populate(target: Path) -> None:
                copy_fixed(directory, target)
                link(all_names(own_snapshot(base)), directory, target)

            return await self._inventory.add(child, populate)
        finally:
            await asyncio.to_thread(self._inventory.registry.unstage_instance, child_id)

    async def _take(
        self,
        record: InstanceRecord,
        changes: Mapping[str, Any],
        *,
        runs_on: bool,
        watch: Stopwatch | None = None,
        while_paused: Callable[[], None] | None = None,
    ) -> InstanceRecord:
        """Make a snapshot the record's, with other changes; the VM is paused for it, and stays so unless it `runs_on`.

        `while_paused` runs in a thread. Until the snapshot is the record's, that says so: the next one is whole then,
        since the dirty log may have been reset for a layer that is lost.
        """
        self._vmms.check_reachable(record)
        directory = self._inventory.layout.instance(record.id)
        sizes = await asyncio.to_thread(memory_sizes, directory, record.size_bytes)
        # The embedded VMM opens no disk.
        vmm = record.process.pid if record.process is not None and record.hypervisor == "firecracker" else None
        disks = await asyncio.to_thread(own_disk_marks, record.name, directory, vmm)
        await self._inventory.save(record.model_copy(update={"snapshot_unfinished": True}))
        watch = watch or Stopwatch()
        with contextlib.ExitStack() as paused:
            paused.enter_context(watch.phase("paused"))
            async with self._vmms.snapshot(record) as files:
                if while_paused is not None:
                    step("copy disks")
                    await asyncio.to_thread(while_paused)
                if runs_on:
                    await self._vmms.resume(record.id)
                paused.close()
                with watch.phase("write"):
                    await asyncio.to_thread(keep, directory, record, files, sizes, self._vmms.written(record))
        files = files.model_copy(update={"disks": disks})
        if runs_on:
            return await self._layers.commit(record, files, changes)
        try:
            return await self._layers.commit(record, files, {**changes, "stopped_at": datetime.now(UTC)})
        except BaseException:
            await asyncio.shield(self._vmms.run_on(record.id))
            raise


def _copy_disks(name: str, directory: Path, staging: Path, disks: tuple[str, ...]) -> None:
    try:
        staging.mkdir(mode=0o750)
        copy_disks(directory, staging, disks)
    except OSError as error:
        raise StorageError(
            f"{name}: its disks cannot be copied: {error.filename}: {error.strerror}; free space in "
            f"{directory.parent} or make it writable"
        ) from error
