"""Whether an instance's VMM runs in a jail, and what it may take there. Pure."""

from collections.abc import Collection, Iterable
from typing import Final, NamedTuple

from supervisor.errors import DependencyMissingError
from supervisor.models import HypervisorName, JailMode

OPEN_FILES: Final = 2048
"""Descriptors of a VMM: a vsock device has one for each of at most 1023 connections (Firecracker's
src/vmm/src/devices/virtio/vsock/csm/mod.rs), a disk and a vCPU some."""
FILE_SLACK: Final = 64 << 20
"""Bytes by which a file may be larger than a disk or the guest's memory."""
TAKEN: Final = frozenset({"firecracker", "firecracker.pid", "vmm", "log", "api.sock", "uffd.sock", "dev"})
"""What a jail has at its top, by the jailer and by us; in `run`, which is there as well, there may be more."""


class JailOptions(NamedTuple):
    """What a supervisor was told of jails; a bound of 0 is none."""

    mode: JailMode
    memory_overhead: int
    """Bytes beyond the guest's memory."""
    pids: int
    """Threads beyond one for each vCPU."""
    cpu_weight: int


class Limits(NamedTuple):
    """What a VMM may take in a jail; None is no bound."""

    memory_bytes: int | None
    pids: int | None
    cpu_weight: int
    file_bytes: int
    """Of a mem-file too: RLIMIT_FSIZE holds for all that it writes."""
    open_files: int = OPEN_FILES


def limits(options: JailOptions, memory_bytes: int, vcpus: int, disk_bytes: Iterable[int]) -> Limits:
    """Return the limits of a machine; `memory_bytes` has what may be plugged in, `disk_bytes` is of each disk."""
    return Limits(
        memory_bytes + options.memory_overhead if options.memory_overhead else None,
        vcpus + options.pids if options.pids else None,
        options.cpu_weight,
        max((memory_bytes, *disk_bytes)) + FILE_SLACK,
    )


def machine_problem(tops: Collection[str], backends: Collection[str]) -> str | None:
    """Return why a machine cannot be in a jail: its files begin with these names, its drives have these backends."""
    if backends:
        return f"a drive's backend listens at {min(backends)}, outside of any jail"
    taken = TAKEN.intersection(tops)
    return f"its vm.json names a file {min(taken)}, which a jail has itself" if taken else None


def jailed(name: str, hypervisor: HypervisorName, mode: JailMode, problem: str | None, own: str | None) -> bool:
    """Return whether the VMM of the instance `name` is to run in a jail.

    `problem` is why none does here, `own` why this one cannot. Raises DependencyMissingError where it has to.
    """
    if mode == "off":
        return False
    if hypervisor == "embedded":
        problem = "the embedded VMM is Python, and has none"
    problem = problem or own
    if problem is not None and mode == "on":
        raise DependencyMissingError(
            f"{name}: it is to run in a jail and cannot: {problem}; or start the supervisor with --jail auto"
        )
    return problem is None
