"""What guests are told: on a disk before their VMMs open it; by MMDS, whose data is in no snapshot, before they run."""

import asyncio
from pathlib import Path
from typing import Any

from supervisor.concurrency.progress import step
from supervisor.images.machine_files import own_config
from supervisor.images.metadata import document, has_mmds, metadata_drive, write_metadata
from supervisor.runtime.stopwatch import Stopwatch
from supervisor.store.records import InstanceRecord
from supervisor.vmm.driver import Vmm


async def for_mmds(record: InstanceRecord, directory: Path) -> dict[str, Any] | None:
    """Return what an instance's guest is to be told by MMDS; None where its machine has none."""
    config = await asyncio.to_thread(own_config, directory)
    return document(record) if has_mmds(config) else None


async def prepared(record: InstanceRecord, directory: Path) -> dict[str, Any] | None:
    """Write an instance's disk that has it, before a VMM opens that; returns the same as `for_mmds`."""
    config = await asyncio.to_thread(own_config, directory)
    if metadata_drive(config) is not None:
        step("metadata")
        await asyncio.to_thread(write_metadata, record, directory)
    return document(record) if has_mmds(config) else None


async def resume(vmm: Vmm, metadata: dict[str, Any] | None, watch: Stopwatch) -> None:
    """Let a VM run that was loaded, and know first who it is."""
    if metadata is not None:
        step("metadata")
        await vmm.api.put_metadata(metadata)
    step("resume")
    with watch.phase("resume"):
        await vmm.api.resume()
