"""Firecracker's jailer: which one, what it is given to start, how it is asked, and whether it can do its work here.

It copies what it starts into each jail: 3 MB, and most of the time that a jail takes. Here that is `enter.elf`, which
goes on as Firecracker by a link that the jail has of it. Firecrackers then share the pages of their program, which the
jailer's copies keep from each other (copy_exec_to_chroot in Firecracker's src/jailer/src/env.rs).
"""

import contextlib
import functools
import hashlib
import os
import platform
import secrets
import shutil
import stat
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from supervisor.errors import DependencyMissingError
from supervisor.system.log_text import escaped
from supervisor.system.processes import status_field
from supervisor.system.regular_files import discard
from supervisor.vmm.enter import MACHINE, PROGRAM
from supervisor.vmm.hypervisor import KVM_DEVICE, FileIdentity, Hypervisor, file_identity, printed_version

_NAME: Final = "firecracker"
"""Has to be in the name of what the jailer starts, and is the name of the directory that jails are in."""
_OWN: Final = "program"
"""The directory beside that one."""
_CAPABILITIES: Final = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
}
"""What the jailer needs, and who looks after what it started: include/uapi/linux/capability.h."""
_KVM_NUMBERS: Final = os.makedev(10, 232)
"""Which the jailer gives the device; DEV_KVM_MAJOR and DEV_KVM_MINOR in its env.rs."""
_TRIAL_SECONDS: Final = 10.0
"""For what takes some milliseconds."""
_UNLIMITED: Final = (1 << 63) - 1
_FILES: Final = 64
_making = threading.Lock()


@dataclass(frozen=True)
class Jailer:
    """The jailer of Firecracker's version."""

    program: Path
    version: str


@dataclass(frozen=True)
class PreparedProgram:
    """What jails start: links of files that are root's, and nobody's to write to."""

    stub: Path
    """What the jailer is told to start."""
    vmm: Path
    """What a jail has to have a link of, as /vmm."""
    identity: FileIdentity
    """Of `vmm`, as /proc/<pid>/exe of a VMM leads to it."""


def find_jailer(named: Path | None, firecracker: Hypervisor) -> Jailer:
    """Return the jailer that was named, or the one beside Firecracker, or in PATH. Blocks: it runs it.

    Raises DependencyMissingError where there is none, and where it is of another version than Firecracker.
    """
    program = named or _found(Path(firecracker.command[0]))
    if program is None:
        raise DependencyMissingError(
            f"there is no jailer beside {firecracker.command[0]} or in PATH: install the one of Firecracker "
            f"{firecracker.version}, or name it with --jailer PATH"
        )
    version = printed_version(program.resolve(), "--version", "Firecracker's jailer", "--jailer")
    if version != firecracker.version:
        raise DependencyMissingError(
            f"{program} is version {version}, and Firecracker {firecracker.version}: name the jailer of that version "
            "with --jailer PATH"
        )
    return Jailer(program.resolve(), version)


def prepare_program(jails: Path, hypervisor: Hypervisor) -> PreparedProgram:
    """Return what jails start, below the directory `jails`, made anew where Firecracker's file has become another.

    Blocks, for two looks where it is there. Raises OSError, also where Firecracker's file is gone.
    """
    source = Path(hypervisor.command[0])
    folder = jails / _OWN / _name_of(source.stat())
    if (made := _made(folder)) is None:
        with _making:
            if (made := _made(folder)) is None:
                _make(folder, source)
                made = _made(folder)
    assert made is not None
    return made


def jailer_command(
    jailer: Jailer,
    program: PreparedProgram,
    *,
    instance_id: str,
    uid: int,
    gid: int,
    jails: Path,
    parent_cgroup: str | None,
    file_bytes: int,
    open_files: int,
    options: Sequence[str],
) -> tuple[str, ...]:
    """Return the command that becomes a jailed Firecracker with these `options`, in the process that it is started as.

    `parent_cgroup` is there, below the mount of cgroups of version 2; None leaves it where it is started.
    """
    # With no --cgroup it moves itself into that group, and makes none: Env::new in its env.rs.
    group = () if parent_cgroup is None else ("--cgroup-version", "2", "--parent-cgroup", parent_cgroup)
    return (
        *(str(jailer.program), "--id", instance_id, "--exec-file", str(program.stub)),
        *("--uid", str(uid), "--gid", str(gid), "--chroot-base-dir", str(jails)),
        *group,
        *("--resource-limit", f"fsize={file_bytes}", "--resource-limit", f"no-file={open_files}"),
        *("--", *options),
    )


def jail_problem(data_dir: Path) -> str | None:
    """Return why no jail can be made in a data directory, and what would allow it; None where one can. Blocks."""
    if os.geteuid() != 0:
        return "the supervisor does not run as root: start it as root"
    effective = int(status_field("self", "CapEff") or "0", 16)
    if lacking := [name for name, number in _CAPABILITIES.items() if not effective >> number & 1]:
        return f"the supervisor lacks {', '.join(lacking)}: start it as root with all capabilities (--privileged)"
    flags = os.statvfs(data_dir).f_flag
    elsewhere = "mount it without, or name another one with --data-dir"
    for flag, word in ((os.ST_NOEXEC, "noexec"), (os.ST_NODEV, "nodev")):
        if flags & flag:
            return f"{data_dir}: its file system is mounted {word}: {elsewhere}"
    return _device_problem(data_dir)


def trial_problem(jailer: Jailer, program: PreparedProgram, *, jails: Path, uid: int, gid: int) -> str | None:
    """Return what a Firecracker in a jail says that is to print its version there, where it does not; else None.

    Blocks. Raises OSError where the jail cannot be made.
    """
    name = f"trial-{secrets.token_hex(4)}"
    jail = jails / _NAME / name
    (jail / "root").mkdir(mode=0o700, parents=True)
    try:
        (jail / "root/vmm").hardlink_to(program.vmm)
        command = jailer_command(
            jailer,
            program,
            instance_id=name,
            uid=uid,
            gid=gid,
            jails=jails,
            parent_cgroup=None,
            file_bytes=_UNLIMITED,
            open_files=_FILES,
            options=("--version",),
        )
        ran = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRIAL_SECONDS, start_new_session=True
        )
    except subprocess.TimeoutExpired:
        return f"{jailer.program}: a trial did not end within {_TRIAL_SECONDS:.0f} s"
    finally:
        discard(jail)
    if ran.returncode == 0 and b"Firecracker v" in ran.stdout:
        return None
    said = [line for line in ran.stderr.decode(errors="replace").splitlines() if line and not line.startswith("note: ")]
    reason = escaped(said[-1]) if said else f"it ended with {ran.returncode}"
    return f"{jailer.program}: a trial was refused: {reason}; start the supervisor outside of a container"


def _device_problem(data_dir: Path) -> str | None:
    """Return why a device of KVM that is made in a directory cannot be opened there, or None."""
    device = data_dir / ".jail-device"
    try:
        discard(device)
        os.mknod(device, stat.S_IFCHR | 0o600, _KVM_NUMBERS)
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        # Without the device on the host nothing is said of the directory.
        if not KVM_DEVICE.exists():
            return None
        return (
            f"{data_dir}: a device that is made there cannot be opened ({error.strerror}): start the supervisor where "
            "it may, outside of a container or a user namespace"
        )
    finally:
        with contextlib.suppress(OSError):
            device.unlink()
    return None


def _found(firecracker: Path) -> Path | None:
    """Return the jailer beside a Firecracker, which may have a version in its name, or the one in PATH."""
    names = (firecracker.name.replace(_NAME, "jailer"), "jailer")
    beside = (firecracker.with_name(name) for name in names if name != firecracker.name)
    in_path = shutil.which("jailer")
    found = next((one for one in beside if os.access(one, os.X_OK)), None)
    return found or (None if in_path is None else Path(in_path))


def _name_of(source: os.stat_result) -> str:
    """Return what a directory is called that has what jails start of a Firecracker."""
    identity = (source.st_dev, source.st_ino, source.st_mtime_ns, source.st_size)
    return hashlib.blake2b(repr((identity, _stub())).encode(), digest_size=8).hexdigest()


@functools.cache
def _stub() -> bytes | None:
    """Return the program that goes on as /vmm; None where there is none, and the jailer copies Firecracker."""
    return PROGRAM.read_bytes() if platform.machine() == MACHINE else None


def _made(folder: Path) -> PreparedProgram | None:
    identity = file_identity(folder / "vmm")
    if identity is None or not (folder / _NAME).exists():
        return None
    return PreparedProgram(folder / _NAME, folder / "vmm", identity)


def _make(folder: Path, source: Path) -> None:
    """Make what jails start of a Firecracker, complete or not at all, and remove what was made of earlier ones."""
    for one in (folder.parent.parent, folder.parent):
        one.mkdir(mode=0o700, exist_ok=True)
    for left in folder.parent.glob(".making-*"):
        discard(left)
    new = folder.with_name(f".making-{secrets.token_hex(4)}")
    new.mkdir(mode=0o700)
    try:
        _link(source, new / "vmm")
        stub = _stub()
        if stub is None:
            (new / _NAME).hardlink_to(new / "vmm")
        else:
            (new / _NAME).write_bytes(stub)
            (new / _NAME).chmod(0o555)
        if folder.exists():
            discard(folder)  # somebody has removed something in it
        new.rename(folder)
    except OSError:
        discard(new)
        raise
    earlier = [one for one in folder.parent.iterdir() if one != folder]
    for one in sorted(earlier, key=lambda one: one.stat().st_mtime_ns)[:-1]:
        # But for the last: a start that was told of it may be about to link it.
        discard(one)


def _link(source: Path, target: Path) -> None:
    """Link a file that is root's, and that anybody may run and nobody else may write to; or copy what is not so."""
    status = source.stat()
    safe = status.st_uid == 0 and stat.S_IMODE(status.st_mode) in (0o755, 0o555)
    if safe:
        try:
            target.hardlink_to(source)
        except OSError:
            safe = False  # it is on another file system, or has as many links as that allows
    if not safe:
        shutil.copyfile(source, target)
        target.chmod(0o555)
