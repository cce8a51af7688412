"""What is done about the faults of a VMM's version, which the VMM tells: rules/firecracker_versions.py decides."""

import dataclasses
import json
import platform
from collections.abc import Iterable
from pathlib import Path

from supervisor.errors import DependencyMissingError
from supervisor.rules.firecracker_versions import CLOCK_FIELD, faults_of, is_whole, sets_clock
from supervisor.snapshots.layers import snapshot_type
from supervisor.store.records import InstanceRecord, ProcessIdentity, StartedVmm
from supervisor.system.processes import boot_id
from supervisor.system.regular_files import read_regular
from supervisor.vmm.api_client import SnapshotType
from supervisor.vmm.configuration import LARGEST_JSON, devices
from supervisor.vmm.driver import Vmm
from supervisor.vmm.hypervisor import Hypervisor, firecracker_version, tracking_field


async def version_of(record: InstanceRecord, vmm: Vmm) -> str | None:
    """Return the version of Firecracker that runs an instance: the program may have been replaced since it began."""
    return firecracker_version(record.hypervisor, await vmm.api.version())


async def started(record: InstanceRecord, vmm: Vmm, version: str | None, snapshot_version: str) -> StartedVmm:
    """Return what is recorded of a VMM that came to run; its devices are asked for where no record has them.

    Raises DependencyMissingError where this version may not run such a machine.
    """
    present = record.devices if record.snapshot is not None else None
    if present is None:
        present = tuple(sorted(await vmm.api.devices()))
    check_known_faults(record, version, present)
    identity = ProcessIdentity(pid=vmm.pid, start_time=vmm.start_time, boot_id=boot_id())
    clock_set = record.snapshot is not None and CLOCK_FIELD in load_fields(record, version)
    return StartedVmm(identity, version, snapshot_version, present, clock_set)


def load_fields(record: InstanceRecord, version: str | None) -> tuple[str, ...]:
    """Return the fields of a load that are on, as this version calls them: tracking of dirty pages, and the clock.

    Firecracker has a clock to set on x86_64 only.
    """
    fields: list[str] = [tracking_field(version)] if record.track_dirty_pages else []
    if record.clock_set and sets_clock(version) and platform.machine() == "x86_64":
        fields.append(CLOCK_FIELD)
    return tuple(fields)


async def snapshot_kind(record: InstanceRecord, vmm: Vmm) -> SnapshotType:
    """Return whether the instance's next snapshot may be a Diff, and would be right as one."""
    version = await version_of(record, vmm)
    if snapshot_type(record) == "Full":
        return "Full"
    machine = dataclasses.replace(record.machine, devices=await vmm.api.devices())
    return "Full" if is_whole(version, machine) else "Diff"


def check_known_faults(record: InstanceRecord, version: str | None, present: Iterable[str]) -> None:
    """Raise DependencyMissingError where this version is not let run a machine with these devices."""
    machine = dataclasses.replace(record.machine, devices=frozenset(present))
    for fault in faults_of(version, machine):
        if fault.action == "refuse":
            raise DependencyMissingError(
                f"{record.name}: Firecracker {version} is refused for it ({fault.name}): {fault.what}; "
                "start the supervisor with --firecracker and a version without that"
            )


def check_boots(record: InstanceRecord, hypervisor: Hypervisor, vm_json: Path) -> None:
    """Raise DependencyMissingError where the hypervisor may not boot this configuration. Blocks.

    What is wrong with the configuration itself is told by who sends it.
    """
    try:
        present = devices(json.loads(read_regular(vm_json, LARGEST_JSON)))
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return
    check_known_faults(record, hypervisor.firecracker_version, present)
