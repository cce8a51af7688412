"""Which VMM programs can run here, and why the others cannot."""

import asyncio
import os
import platform
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from supervisor import embedded
from supervisor.errors import DependencyMissingError, VmmError
from supervisor.models import HypervisorChoice, HypervisorName
from supervisor.rules.firecracker_versions import OLD_TRACKING_FIELD, TOO_OLD, has
from supervisor.system.isolated_python import isolated_command
from supervisor.system.processes import status_field
from supervisor.vmm.api_client import TrackingField
from supervisor.vmm.probe import run

KVM_DEVICE: Final = Path("/dev/kvm")
USERFAULTFD_DEVICE: Final = Path("/dev/userfaultfd")
UNPRIVILEGED_USERFAULTFD: Final = Path("/proc/sys/vm/unprivileged_userfaultfd")
ARCHITECTURES: Final = ("x86_64", "aarch64")
PROBE_TIMEOUT: Final = 10.0
"""Seconds for a program to print its version."""
CAP_SYS_PTRACE: Final = 19
"""include/uapi/linux/capability.h."""


FileIdentity = tuple[int, int, int]
"""Device, inode and time of the last change (ns)."""


@dataclass(frozen=True)
class Hypervisor:
    """A VMM program that can run here; `command` comes before Firecracker's options."""

    name: HypervisorName
    command: tuple[str, ...]
    version: str
    snapshot_version: str
    """The version of the state-files that it writes, and the newest that it loads."""
    program: "FileIdentity | None" = field(default=None, compare=False)
    """Which file told the versions; None for the embedded VMM, which is of the supervisor's own."""

    @property
    def firecracker_version(self) -> str | None:
        """The version of Firecracker that it is, or that the embedded VMM answers as; None where it is none."""
        return firecracker_version(self.name, self.version)


def firecracker_version(name: HypervisorName, answered: str) -> str | None:
    """Return of what version of Firecracker a VMM is that answered this one: the embedded VMM has one of its own."""
    return None if name == "embedded" and answered == embedded.VERSION else answered


def tracking_field(version: str | None) -> TrackingField:
    """Return the field of a load that turns dirty tracking on; the embedded VMM by itself knows both names."""
    return "enable_diff_snapshots" if has(version, OLD_TRACKING_FIELD) else "track_dirty_pages"


def loads(name: HypervisorName, own: str, version: str) -> bool:
    """Return whether a VMM whose snapshot version is `own` loads a state-file of `version`.

    Firecracker: load_without_crc_check in its src/vmm/src/snapshot/mod.rs.
    """
    if name == "embedded":
        return version == own
    (own_major, own_minor), (major, minor) = (tuple(map(int, one.split(".")[:2])) for one in (own, version))
    return major == own_major and minor <= own_minor


def snapshot_version(hypervisor: Hypervisor) -> str:
    """Return the snapshot version of the program that would be started now: as found at start, or asked anew.

    A file that was replaced meanwhile is another Firecracker. Blocks. Raises DependencyMissingError where it prints
    none.
    """
    program = Path(hypervisor.command[0])
    if hypervisor.program is None or file_identity(program) in (hypervisor.program, None):
        return hypervisor.snapshot_version
    return printed_version(program, "--snapshot-version")


class StartedPrograms:
    """The snapshot versions of VMMs, each as the file tells it that was started.

    What a VMM has become by then is known by its file's identity alone, and never run: it is trusted with less than
    whoever asks.
    """

    def __init__(self) -> None:
        self._versions: dict[FileIdentity, str] = {}

    async def version_of(self, hypervisor: Hypervisor, pid: int) -> str:
        """Return that of a VMM which has just been started; raises DependencyMissingError where its file prints none.

        A script that execs another file may come to start a newer one: the script is asked once for each.
        """
        running = file_identity(Path(f"/proc/{pid}/exe"))
        known = self._known(hypervisor, running)
        if known is None:
            assert running is not None
            program = Path(hypervisor.command[0])
            known = self._versions[running] = await asyncio.to_thread(printed_version, program, "--snapshot-version")
        return known

    def version_found(self, name: str, hypervisor: Hypervisor, pid: int, version: str | None) -> str:
        """Return that of the VMM, of this `version`, of an instance which an earlier supervisor had started.

        A file that was replaced by another of the same version writes the same state-files. VmmError where nothing
        tells it.
        """
        known = self._known(hypervisor, file_identity(Path(f"/proc/{pid}/exe")))
        if known is None and version == hypervisor.version:
            known = hypervisor.snapshot_version
        if known is None:
            raise VmmError(
                f"{name}: of which snapshot version its VMM is was not noted by the supervisor that started it, and "
                f"Firecracker {version} is not what {hypervisor.command[0]} is: start the supervisor with "
                "--firecracker and that version, or stop the instance"
            )
        return known

    def _known(self, hypervisor: Hypervisor, running: FileIdentity | None) -> str | None:
        # Of a process that has ended there is no file: whatever it is asked for next says so.
        if hypervisor.program is None or running in (hypervisor.program, None):
            return hypervisor.snapshot_version
        return self._versions.get(running)


def select_hypervisor(
    wanted: HypervisorChoice, firecracker: Path | None, embedded_version: str | None = None
) -> Hypervisor:
    """Return the hypervisor that was asked for; `auto` is Firecracker where it works, else the embedded VMM.

    `firecracker` is the binary; None looks in PATH. `embedded_version` is the Firecracker that the embedded VMM answers
    as. Raises DependencyMissingError where what was asked for cannot run.
    """
    found = available(firecracker, embedded_version)
    names: tuple[HypervisorName, ...] = ("firecracker", "embedded") if wanted == "auto" else (wanted,)
    for name in names:
        hypervisor = found[name]
        if isinstance(hypervisor, Hypervisor):
            return hypervisor
    raise DependencyMissingError(f"{names[-1]} cannot run here: {found[names[-1]]}")


def available(firecracker: Path | None, embedded_version: str | None = None) -> dict[HypervisorName, Hypervisor | str]:
    """Return each hypervisor, or why it cannot run here and what would allow it. Blocks: it runs Firecracker."""
    return {"firecracker": _firecracker(firecracker), "embedded": embedded_hypervisor(embedded_version)}


def usable(found: Mapping[HypervisorName, Hypervisor | str], name: HypervisorName) -> Hypervisor:
    """Return a hypervisor of those that were looked for; DependencyMissingError with the reason where it cannot run."""
    one = found[name]
    if isinstance(one, str):
        raise DependencyMissingError(f"{name} cannot run here: {one}; a supervisor looks for that when it starts")
    return one


def embedded_hypervisor(answers_as: str | None = None) -> Hypervisor:
    """Return the embedded VMM, which runs wherever Python does, and can answer as a version of Firecracker."""
    command = isolated_command("from supervisor.embedded.__main__ import leave, main; leave(main(sys.argv[1:]))")
    if answers_as is not None:
        command += ("--answer-as", answers_as)
    return Hypervisor("embedded", command, answers_as or embedded.VERSION, embedded.SNAPSHOT_VERSION)


def userfaultfd_problem(hypervisor: Hypervisor) -> str | None:
    """Return why this hypervisor cannot load a snapshot with the backend Uffd here, or None."""
    if not UNPRIVILEGED_USERFAULTFD.exists():
        return "this kernel has no userfaultfd: boot one with CONFIG_USERFAULTFD"
    if hypervisor.name == "embedded":
        # Only its own threads touch its guest memory, and UFFD_USER_MODE_ONLY needs no permission: userfaultfd(2).
        return None
    # Where there is the device, Firecracker uses it and nothing else
    # (docs/snapshotting/handling-page-faults-on-snapshot-resume.md).
    if USERFAULTFD_DEVICE.exists():
        if os.access(USERFAULTFD_DEVICE, os.R_OK | os.W_OK):
            return None
        return (
            f"{USERFAULTFD_DEVICE} cannot be opened: give this user access (setfacl -m u:$USER:rw {USERFAULTFD_DEVICE})"
        )
    if UNPRIVILEGED_USERFAULTFD.read_text().strip() == "1" or _has_capability(CAP_SYS_PTRACE):
        return None
    return (
        "KVM's page faults need CAP_SYS_PTRACE or /dev/userfaultfd (Linux 6.1): run as root, "
        "set the sysctl vm.unprivileged_userfaultfd=1"
    )


def _firecracker(named: Path | None) -> Hypervisor | str:
    if platform.machine() not in ARCHITECTURES:
        return f"Firecracker runs on {' and '.join(ARCHITECTURES)}, and this is {platform.machine()}"
    if named is None:
        found = shutil.which("firecracker")
        if found is None:
            named_so = "--firecracker PATH (FORKTUI_FIRECRACKER)"
            return f"there is no firecracker in PATH: install it, or name the binary with {named_so}"
        named = Path(found)
    path = named.resolve()
    identity = file_identity(path)
    try:
        version = printed_version(path, "--version")
        snapshots = printed_version(path, "--snapshot-version")
    except DependencyMissingError as problem:
        return problem.message
    too_old = has(version, TOO_OLD)
    if too_old is not None:
        return f"{path} is version {version}, and {too_old.doing}: name a newer one with --firecracker PATH"
    return _kvm_problem() or Hypervisor("firecracker", (str(path),), version, snapshots, identity)


def file_identity(path: Path) -> FileIdentity | None:
    """Return which file a path leads to, and in which state; None where it leads nowhere."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_mtime_ns


def printed_version(program: Path, option: str, what: str = "Firecracker", named_by: str = "--firecracker") -> str:
    """Return what the first line says after "v"; Firecracker prints a line of its log behind it.

    Raises DependencyMissingError where it is not such a program.
    """
    try:
        ran = run((program, option), PROBE_TIMEOUT)
    except TimeoutError as error:
        raise DependencyMissingError(
            f"{program} {option} did not end within {PROBE_TIMEOUT:.0f} s, or prints for ever: is it {what}?"
        ) from error
    except OSError as error:
        raise DependencyMissingError(
            f"{program} cannot be run: {error.strerror}; name one for {platform.machine()} with {named_by} PATH"
        ) from error
    printed = re.match(rb"(?:Firecracker |Jailer )?v([0-9]+\.[0-9]+[0-9A-Za-z.+-]{0,57})", ran.output)
    if ran.code != 0 or printed is None:
        raise DependencyMissingError(f"{program} {option} printed no version: is it {what}?")
    return printed[1].decode()


def _kvm_problem() -> str | None:
    try:
        os.close(os.open(KVM_DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except PermissionError:
        return f"{KVM_DEVICE} cannot be opened: add your user to its group (usermod -aG kvm $USER) and log in again"
    except FileNotFoundError:
        return f"there is no {KVM_DEVICE}: enable virtualization and load kvm_intel or kvm_amd"
    except OSError as error:
        return f"{KVM_DEVICE} cannot be opened: {error.strerror}; load kvm_intel or kvm_amd"
    return None


def _has_capability(number: int) -> bool:
    effective = status_field("self", "CapEff")
    return effective is not None and bool(int(effective, 16) >> number & 1)
