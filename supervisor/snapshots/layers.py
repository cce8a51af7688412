"""Memory images of instances: what the next snapshot adds to a chain of layers, and chains made shorter."""

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from supervisor.concurrency.progress import check, step
from supervisor.errors import InvalidStateError, LayerError, OperationCancelledError, StorageError
from supervisor.models import how_many
from supervisor.models.base import Report
from supervisor.snapshots.layer_checks import check_layers, take_marks
from supervisor.snapshots.layer_files import complete, make_way, merge, remove, tells_pages_apart
from supervisor.store.inventory import Inventory
from supervisor.store.layer_marks import marks_of
from supervisor.store.layout import layer, partial, state_file
from supervisor.store.records import InstanceRecord, SnapshotFiles
from supervisor.system.sparse_files import allocated
from supervisor.uffd.memory_image import GRANULE_BYTES
from supervisor.vmm.api_client import SnapshotType


def own_snapshot(record: InstanceRecord) -> SnapshotFiles:
    """Return the snapshot of an instance that has one."""
    if record.snapshot is None:
        raise InvalidStateError(f"{record.name}: it is {record.state} but has no snapshot; delete it")
    return record.snapshot


def snapshot_type(record: InstanceRecord) -> SnapshotType:
    """Return whether the instance's next snapshot may leave out what its present layers have."""
    return "Diff" if record.track_dirty_pages and not record.snapshot_unfinished else "Full"


def next_snapshot(record: InstanceRecord, kind: SnapshotType, snapshot_version: str) -> SnapshotFiles:
    """Return the files that a snapshot leads to: a new state-file, and a new layer upon those that a Diff needs."""
    base = record.snapshot.layers if record.snapshot and kind == "Diff" else ()
    number = record.next_layer
    return SnapshotFiles(state=state_file(number), layers=(layer(number), *base), snapshot_version=snapshot_version)


def new_names(record: InstanceRecord, files: SnapshotFiles) -> tuple[str, ...]:
    """Return what of a snapshot's files the record's snapshot does not have."""
    present = all_names(record.snapshot)
    return tuple(name for name in all_names(files) if name not in present)


def all_names(files: SnapshotFiles | None) -> tuple[str, ...]:
    """Return the names of a snapshot's files, if there is one."""
    return (files.state, *files.layers) if files else ()


def layers_to_merge(sizes: Sequence[int], limit: int) -> int:
    """Return how many of a chain's layers, given by their bytes, newest first, become one; 0 where none has to.

    All but the oldest, until together they are as large as that: it is mostly the largest, and so seldom copied.
    """
    if len(sizes) <= limit:
        return 0
    return len(sizes) - 1 if sum(sizes[:-1]) < sizes[-1] else len(sizes)


def _marked(record: InstanceRecord, files: SnapshotFiles, directory: Path) -> SnapshotFiles:
    """Return files with what there is to note of each layer; what was noted of one before stays so. Blocks."""
    noted = dict(marks_of(record.snapshot.layers, record.snapshot.layer_marks)) if record.snapshot else {}
    new = [name for name in files.layers if name not in noted]
    noted |= dict(zip(new, take_marks(record.name, [directory / name for name in new]), strict=True))
    return files.model_copy(update={"layer_marks": tuple(noted[name] for name in files.layers)})


class Layers:
    """Changes of chains; the caller holds the instance. Whoever else has names of a layer still reads it."""

    def __init__(self, inventory: Inventory, max_layers: int, report: Report) -> None:
        self._inventory = inventory
        self._max_layers = max_layers
        self._report = report
        self.diff_layers = True
        """Whether a diff layer shows what it has, where the instances are."""

    async def probe(self) -> None:
        """Find out whether the file system can tell the pages of diff layers apart."""
        directory = self._inventory.layout.instances
        problem = "its file system has blocks larger than a page; a --data-dir with blocks of 4 KiB takes diff layers"
        try:
            self.diff_layers = await asyncio.to_thread(tells_pages_apart, directory, GRANULE_BYTES)
        except OSError as error:
            self.diff_layers = False
            problem = f"{error.strerror}; free space or make it writable, and start again"
        if not self.diff_layers:
            self._report("warning", f"{directory}: new VMs have whole snapshots and no diff layers: {problem}", None)

    async def commit(self, record: InstanceRecord, files: SnapshotFiles, changes: Mapping[str, Any]) -> InstanceRecord:
        """Make a new snapshot the record's, with other changes; what that no longer needs is removed.

        On failure the new files are.
        """
        directory = self._inventory.layout.instance(record.id)
        try:
            files = await asyncio.to_thread(_marked, record, files, directory)
        except BaseException:
            remove(directory, new_names(record, files))
            raise
        update = {
            "snapshot": files,
            "next_layer": record.next_layer + 1,
            "snapshot_unfinished": False,
            **changes,
        }
        changed = record.model_copy(update=update)
        try:
            await self._inventory.save(changed)
        except BaseException:
            remove(directory, new_names(record, files))
            raise
        if record.snapshot is not None:
            step("remove old layers")
            await asyncio.to_thread(remove, directory, new_names(changed, record.snapshot))
        return changed

    async def flatten(self, record: InstanceRecord) -> InstanceRecord:
        """Bring an instance's memory image into one file, which the file backend needs; it stays so."""
        return await self._merge(record, len(own_snapshot(record).layers))

    async def compact(self, record: InstanceRecord) -> InstanceRecord:
        """Merge layers where the chain has become too long; on failure, or cancelled, the chain stays as it is."""
        directory = self._inventory.layout.instance(record.id)
        sizes = [allocated((directory / name).stat()) for name in own_snapshot(record).layers]
        try:
            return await self._merge(record, layers_to_merge(sizes, self._max_layers))
        except (LayerError, StorageError) as error:
            self._report("warning", error.message, record.id)
        except OperationCancelledError as error:
            self._report("info", f"{error.message}; its memory image keeps {how_many(len(sizes), 'layer')}", record.id)
        return record

    async def _merge(self, record: InstanceRecord, count: int) -> InstanceRecord:
        """Merge the newest `count` layers into a new one."""
        if count < 2:
            return record
        directory = self._inventory.layout.instance(record.id)
        snapshot = own_snapshot(record)
        merged = layer(record.next_layer)

        def write() -> None:
            check()
            make_way(directory, (merged,))
            layers = [directory / name for name in snapshot.layers]
            check_layers(record.name, layers, snapshot.layer_marks)
            step("merge")
            merge(layers[:count], partial(directory / merged))
            complete(directory, (merged,))

        files = snapshot.model_copy(update={"layers": (merged, *snapshot.layers[count:])})
        try:
            await asyncio.to_thread(write)
        except OSError as error:
            remove(directory, (merged,))
            raise StorageError(
                f"{record.name}: {count} layers of its memory cannot be merged: {error.strerror}; free space in "
                f"{directory.parent}"
            ) from error
        except BaseException:
            remove(directory, (merged,))
            raise
        return await self.commit(record, files, {"snapshot_unfinished": record.snapshot_unfinished})
