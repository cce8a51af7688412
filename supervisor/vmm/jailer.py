"""STAND-IN until wip-cgroups has it."""

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from supervisor.errors import DependencyMissingError
from supervisor.vmm.hypervisor import FileIdentity, Hypervisor, file_identity


@dataclass(frozen=True)
class Jailer:
    """The program."""

    program: Path
    version: str


@dataclass(frozen=True)
class PreparedProgram:
    """What jails start."""

    stub: Path
    vmm: Path
    identity: FileIdentity


def find_jailer(named: Path | None, firecracker: Hypervisor) -> Jailer:
    """Find it."""
    path = named or Path(firecracker.command[0]).with_name("jailer")
    if not path.exists():
        raise DependencyMissingError(f"there is no jailer at {path}: name it with --jailer PATH")
    return Jailer(path, firecracker.version)


def prepare_program(jails: Path, hypervisor: Hypervisor) -> PreparedProgram:
    """Copy it."""
    jails.mkdir(mode=0o700, exist_ok=True)
    target = jails / "program"
    target.mkdir(mode=0o700, exist_ok=True)
    vmm = target / "firecracker"
    if not vmm.exists():
        shutil.copy(hypervisor.command[0], vmm)
    vmm.chmod(0o555)
    identity = file_identity(vmm)
    assert identity is not None
    return PreparedProgram(vmm, vmm, identity)


def jailer_command(
    jailer: Jailer,
    program: PreparedProgram,
    *,
    instance_id: str,
    uid: int,
    gid: int,
    jails: Path,
    parent_cgroup: str,
    file_bytes: int,
    open_files: int,
    options: Sequence[str],
) -> tuple[str, ...]:
    """Return it."""
    return (
        str(jailer.program),
        *("--id", instance_id, "--exec-file", str(program.stub), "--uid", str(uid), "--gid", str(gid)),
        *("--chroot-base-dir", str(jails), "--cgroup-version", "2", "--parent-cgroup", parent_cgroup),
        *("--resource-limit", f"fsize={file_bytes}", "--resource-limit", f"no-file={open_files}"),
        *("--", *options),
    )


def jail_problem(data_dir: Path) -> str | None:
    """Return what lacks."""
    return None if os.geteuid() == 0 else "the supervisor does not run as root: start it so"
