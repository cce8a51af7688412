"""A cgroup for each VM: known by it, held to its limits by it, ended by it with all that it started.

It is `forktui/<hash of the data directory>/<instance>` in the hierarchy of the second version, as the kernel names
those. Where controllers are in hierarchies of the first version, it is there as well. Every function blocks on these.
"""

import contextlib
import errno
import hashlib
import os
import select
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final, Self

from supervisor.system.cgroup_limits import (
    CONTROLLERS,
    CgroupLimits,
    CgroupUsage,
    Place,
    apply,
    settings,
    usage,
    words,
    write,
)
from supervisor.system.cgroups import Hierarchies, Mount
from supervisor.system.processes import KILL_TIMEOUT, is_kernel_thread, kill, proc_file, wait_for_ends

TOP: Final = "forktui"
_OPTIONS: Final = {"memory": "--jail-memory-overhead 0", "pids": "--jail-pids 0", "cpu": "--jail-cpu-weight 100"}
"""By which nothing is asked of a controller."""
_EVENTS_BYTES: Final = 4096


class CgroupsMissingError(OSError):
    """There can be no cgroups, or not with these limits; the text says what lacks, and what would allow it."""


def is_of_one_vm(folder: Path) -> bool:
    """Return whether a directory is, by its name, a cgroup that a VM has for itself, whatever it has started there."""
    return folder.parent.parent.name == TOP


def group_of(data_dir: Path) -> PurePosixPath:
    """Return what the cgroups of a data directory are in, below the mounts of cgroups."""
    return PurePosixPath(TOP, hashlib.blake2b(os.fsencode(data_dir), digest_size=8).hexdigest())


class OwnCgroups:
    """The cgroups of one data directory's VMs."""

    def __init__(self, name: PurePosixPath, mount: Mount, first: dict[str, Mount], *, weighted: bool = True) -> None:
        """`first` are the mounts of the first version that have a controller, by its name."""
        self._name = name
        self._mount = mount
        self._unified = mount.folder / name
        self._of_first = first
        self._controllers = CONTROLLERS if weighted else tuple(name for name in CONTROLLERS if name != "cpu")
        self._places: dict[str, Place] = {}
        self._missing: dict[str, str] = {}
        self._prepare()

    @classmethod
    def open(cls, data_dir: Path, *, weighted: bool = True) -> Self:
        """Make what a data directory's cgroups are in; raises CgroupsMissingError.

        Only where VMs are to be `weighted` they are groups to the scheduler: however many are in it, a group has the
        processors that it is given beside its siblings, of which each process outside of any is one.
        """
        hierarchies = Hierarchies.mounted()
        # The jailer takes the first as well: CgroupHierarchies in Firecracker's src/jailer/src/cgroup.rs.
        mount = hierarchies.mount(2)
        if mount is None:
            raise CgroupsMissingError(
                "no cgroups of version 2 are mounted here: mount them (mount -t cgroup2 none DIRECTORY), or boot with "
                "systemd.unified_cgroup_hierarchy=1"
            )
        first = {name: one for name in CONTROLLERS if (one := hierarchies.mount(1, name)) is not None}
        try:
            return cls(group_of(data_dir), mount, first, weighted=weighted)
        except CgroupsMissingError:
            raise
        except OSError as error:
            raise CgroupsMissingError(_refused(mount.folder, error)) from error

    def parent(self, instance_id: str) -> str:
        """Return a VM's cgroup as the jailer's --parent-cgroup names it, below the mount of the second version."""
        return str(self._name / instance_id)

    def problem(self, limits: CgroupLimits) -> str | None:
        """Return why a VM cannot be held to these limits here, and what would allow it; None where it can."""
        for setting in settings(limits, self._versions):
            if setting.controller in self._missing:
                reason, option = self._missing[setting.controller], _OPTIONS[setting.controller]
                return f"{setting.file} cannot be set: {reason}, or start the supervisor with {option}"
        return None

    def make(self, instance_id: str, limits: CgroupLimits) -> None:
        """Make the cgroup of a VM that is to be started, anew where there is one.

        Raises OSError, as where processes are in the one that is there, and CgroupsMissingError for a limit that
        cannot be.
        """
        self._check(limits)
        try:
            self._make(instance_id, limits)
        except FileNotFoundError:
            # Somebody has removed what it is to be in, or taken a controller from that.
            self._prepare()
            self._check(limits)
            self._make(instance_id, limits)

    def join(self, instance_id: str, pid: int) -> None:
        """Move a process into a VM's cgroups of the first version; raises OSError.

        It waits for an RCU grace period for each hierarchy: cgroup_attach_lock in kernel/cgroup/cgroup.c.
        """
        for folder in self._folders()[1:]:
            write(folder / instance_id / "cgroup.procs", pid)

    @contextlib.contextmanager
    def held(self, instance_id: str) -> Iterator[tuple[int, tuple[int, ...]]]:
        """Give descriptors of a VM's cgroups: of the directory of the second version, and of `tasks` of each other.

        Who writes 0 to such a file moves itself there, and waits for no grace period: cgroup_procs_write_start in
        kernel/cgroup/cgroup.c. Raises OSError.
        """
        with contextlib.ExitStack() as opened:
            unified, *first = (folder / instance_id for folder in self._folders())
            held = [os.open(unified, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)]
            opened.callback(os.close, held[0])
            for folder in first:
                held.append(os.open(folder / "tasks", os.O_WRONLY | os.O_CLOEXEC))
                opened.callback(os.close, held[-1])
            yield held[0], tuple(held[1:])

    def has(self, instance_id: str, pid: int) -> bool:
        """Return whether a process is in a VM's cgroup; one that has ended is in none."""
        try:
            told = proc_file(pid, "cgroup").decode(errors="surrogateescape").splitlines()
        except OSError:
            return False
        path = next((line.removeprefix("0::") for line in told if line.startswith("0::")), "")
        groups = self._mount.down_to(PurePosixPath(path))
        return bool(groups) and groups[0].folder == self._unified / instance_id

    def processes(self, instance_id: str) -> tuple[int, ...]:
        """Return the processes in a VM's cgroup, but for those that only wait to be reaped, and the kernel's own."""
        found = map(int, words(self._unified / instance_id / "cgroup.procs"))
        return tuple(pid for pid in found if not is_kernel_thread(pid))

    def kill(self, instance_id: str) -> None:
        """Send SIGKILL to all that is in a VM's cgroup, also to what is being forked there; raises OSError.

        It need not have ended when this returns. TimeoutError where a kernel before 5.14 is asked, and something does
        not end.
        """
        try:
            write(self._unified / instance_id / "cgroup.kill", 1)
        except FileNotFoundError:
            self._kill_each(instance_id)

    def until_empty(self, instance_id: str, seconds: float = KILL_TIMEOUT) -> bool:
        """Wait until nothing is in a VM's cgroup, as after `kill`; returns whether that is so."""
        deadline = time.monotonic() + seconds
        try:
            events = os.open(self._unified / instance_id / "cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            poll = select.poll()
            # What has changed since it was read is told by POLLPRI: cgroup-v2.rst.
            poll.register(events, select.POLLPRI)
            while b"populated 1" in os.pread(events, _EVENTS_BYTES, 0):
                if (remaining := deadline - time.monotonic()) <= 0:
                    return False
                poll.poll(remaining * 1e3)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise
            # It was removed meanwhile, and so it was empty.
        finally:
            os.close(events)
        return True

    def remove(self, instance_id: str) -> bool:
        """Remove a VM's cgroup, if there is one; returns False where something is in it yet. Raises OSError."""
        gone = True
        for folder in self._every_folder():
            gone &= _removed(folder / instance_id)
        return gone

    def instances(self) -> tuple[str, ...]:
        """Return the instances that have a cgroup of this data directory."""
        found: set[str] = set()
        for folder in self._every_folder():
            with contextlib.suppress(FileNotFoundError):
                found.update(one.name for one in folder.iterdir() if one.is_dir())
        return tuple(sorted(found))

    def usage(self, instance_id: str) -> CgroupUsage | None:
        """Return what a VM's cgroup uses; None where it has none."""
        places = {name: Place(place.folder / instance_id, place.version) for name, place in self._places.items()}
        return usage(self._unified / instance_id, places)

    def leave(self) -> None:
        """Remove what the cgroups of this data directory are in, unless one is left; raises OSError."""
        for folder in self._every_folder():
            if _removed(folder):
                # Another data directory may have its own beside it.
                _removed(folder.parent)

    @property
    def _versions(self) -> dict[str, int]:
        return {name: place.version for name, place in self._places.items()}

    def _folders(self) -> list[Path]:
        """Return what the cgroups are in, that of the second version first."""
        return list(dict.fromkeys((self._unified, *(place.folder for place in self._places.values()))))

    def _every_folder(self) -> list[Path]:
        """Return the same, and where a supervisor with other options may have had some."""
        first = (mount.folder / self._name for mount in self._of_first.values())
        return list(dict.fromkeys((*self._folders(), *first)))

    def _prepare(self) -> None:
        """Make what VMs' cgroups are in, and have the second version's controllers reach down to there.

        A controller that cannot be had is noted down with the reason. Raises OSError.
        """
        self._unified.mkdir(parents=True, exist_ok=True)
        places: dict[str, Place] = {}
        missing: dict[str, str] = {}
        for name in self._controllers:
            if name in self._of_first:
                place, reason = Place(self._of_first[name].folder / self._name, 1), None
                try:
                    place.folder.mkdir(parents=True, exist_ok=True)
                except OSError as error:
                    reason = _refused(self._of_first[name].folder, error)
            else:
                place, reason = Place(self._unified, 2), self._not_passed_on(name)
            if reason is None:
                places[name] = place
            else:
                missing[name] = reason
        self._places, self._missing = places, missing

    def _not_passed_on(self, controller: str) -> str | None:
        above = (self._mount.folder, self._mount.folder / TOP, self._unified)
        return next((reason for folder in above if (reason := _not_enabled(folder, controller))), None)

    def _check(self, limits: CgroupLimits) -> None:
        if problem := self.problem(limits):
            raise CgroupsMissingError(problem)

    def _make(self, instance_id: str, limits: CgroupLimits) -> None:
        if not self.remove(instance_id):
            found = self.processes(instance_id)
            raise OSError(errno.EBUSY, f"processes are in it: {found}", str(self._unified / instance_id))
        try:
            for folder in self._folders():
                (folder / instance_id).mkdir()
            for setting in settings(limits, self._versions):
                apply(setting, self._places[setting.controller].folder / instance_id)
        except OSError:
            self.remove(instance_id)
            raise

    def _kill_each(self, instance_id: str) -> None:
        deadline = time.monotonic() + KILL_TIMEOUT
        while found := self.processes(instance_id):
            if (remaining := deadline - time.monotonic()) <= 0:
                raise TimeoutError(errno.ETIMEDOUT, f"{found} do not end", str(self._unified / instance_id))
            with contextlib.ExitStack() as opened:
                killed = []
                for pid in found:
                    with contextlib.suppress(ProcessLookupError):
                        pidfd = os.pidfd_open(pid)
                        opened.callback(os.close, pidfd)
                        # Looked at again: the pid may have become another's before it was opened.
                        if self.has(instance_id, pid):
                            kill(pidfd)
                            killed.append(pidfd)
                wait_for_ends(killed, remaining)


def _not_enabled(folder: Path, controller: str) -> str | None:
    """Have a cgroup of the second version pass a controller on to those in it; return why it cannot, or None."""
    passed_on = folder / "cgroup.subtree_control"
    if controller in words(passed_on):
        return None
    if controller not in words(folder / "cgroup.controllers"):
        return f"{folder} has no controller {controller}: boot the host without cgroup_disable={controller}"
    # The root of a container's. It would be refused for memory; but pids and cpu, by themselves, would make groups
    # below it such that no process may be in them: "domain invalid" of cgroup-v2.rst. The host's root has no type.
    if (folder / "cgroup.type").exists() and words(folder / "cgroup.procs"):
        return f"processes are in {folder} itself, which passes no controller on: move them into a cgroup below it"
    try:
        write(passed_on, f"+{controller}")
    except OSError as error:
        return f"{folder} does not pass {controller} on ({error.strerror}): have it so (+{controller} in {passed_on})"
    return None


def _removed(folder: Path) -> bool:
    """Remove a cgroup, if it is there; returns False where something is in it."""
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
            raise
        return False
    return True


def _refused(folder: Path, error: OSError) -> str:
    advice = {
        errno.EROFS: "mount it for writing; a container has it so with --privileged",
        errno.EACCES: "start the supervisor as root",
        errno.EPERM: "start the supervisor as root",
        errno.EAGAIN: "raise its cgroup.max.descendants",
    }
    reason = (error.strerror or "it is refused").lower()
    return f"no cgroup can be made in {folder}: {reason}; {advice.get(error.errno or 0, 'see whether it is mounted')}"
