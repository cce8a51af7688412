"""What of a host jails are made with, or what lacks of that. Every function blocks."""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from supervisor.errors import DependencyMissingError
from supervisor.rules.jail import Limits
from supervisor.store.layout import Layout
from supervisor.system.cgroup_limits import DEFAULT_WEIGHT, CgroupLimits
from supervisor.system.own_cgroups import OwnCgroups
from supervisor.system.processes import status_field
from supervisor.vmm.hypervisor import UNPRIVILEGED_USERFAULTFD, USERFAULTFD_DEVICE, Hypervisor
from supervisor.vmm.into_cgroup import prepare
from supervisor.vmm.jailer import Jailer, PreparedProgram, find_jailer, jail_problem, prepare_program, trial_problem


@dataclass(frozen=True)
class Found:
    """What jails are made with here."""

    jailer: Jailer
    program: PreparedProgram
    cgroups: OwnCgroups
    helper: Path | None
    """What begins a jailer in its cgroup; None where there is none for this machine."""


def find(layout: Layout, named: Path | None, firecracker: Hypervisor | str, uids: range, bounds: Limits) -> Found | str:
    """Return what jails are made with, or why there can be none; what is made for that is in the data directory.

    `bounds` are of the kinds that each is to be held to.
    """
    if isinstance(firecracker, str):
        return firecracker
    data_dir, jails = layout.data_dir, layout.jails
    problem = jail_problem(data_dir) or _userfaultfd_problem() or _lease_problem(data_dir)
    if problem is not None:
        return problem
    try:
        jailer, cgroups = (
            find_jailer(named, firecracker),
            OwnCgroups.open(data_dir, weighted=bounds.cpu_weight != DEFAULT_WEIGHT),
        )
        program, helper = prepare_program(jails, firecracker), jails / "into_cgroup"
        problem = cgroups.problem(CgroupLimits(bounds.memory_bytes, bounds.pids, bounds.cpu_weight))
        problem = problem or trial_problem(jailer, program, jails=jails, uid=uids[-1], gid=uids[0])
        return problem or Found(jailer, program, cgroups, helper if prepare(helper) else None)
    except DependencyMissingError as error:
        return error.message
    except OSError as error:
        # CgroupsMissingError is a text and no number.
        return str(error) if error.errno is None else f"{error.filename or jails}: {error.strerror}"


def foreign_uids(uids: range, own: Collection[int | None]) -> frozenset[int]:
    """Return the uids of a range that processes have, but for our own."""
    found: set[int] = set()
    for name in os.listdir("/proc"):  # noqa: PTH208 - no path is to be made of each
        if name.isdecimal():
            with contextlib.suppress(OSError):
                found.update(map(int, (status_field(name, "Uid") or "").split()))
    return frozenset(found.intersection(uids).difference(own))


def _userfaultfd_problem() -> str | None:
    """Return why a VMM without capabilities cannot have its memory served here; KVM's faults are the kernel's."""
    if USERFAULTFD_DEVICE.exists() or not UNPRIVILEGED_USERFAULTFD.exists():
        return None
    if UNPRIVILEGED_USERFAULTFD.read_text().strip() == "1":
        return None
    return (
        f"a VMM without capabilities has no userfaultfd here: boot Linux 6.1 for {USERFAULTFD_DEVICE}, or set the "
        "sysctl vm.unprivileged_userfaultfd=1"
    )


def _lease_problem(data_dir: Path) -> str | None:
    """Return why it could not be told whether a VMM writes on in what it has written, or None: fcntl(2), F_SETLEASE."""
    try:
        with tempfile.NamedTemporaryFile(dir=data_dir) as file, open(file.name, "rb") as again:  # noqa: PTH123
            file.close()
            fcntl.fcntl(again, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(again, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return f"{data_dir}: its file system has no leases ({error.strerror}): name one that has with --data-dir"
    return None
