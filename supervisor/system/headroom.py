"""What the host has left for more VMs, as the kernel tells: memory, descriptors, processes, disk. Blocks on /proc."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from supervisor.system.descriptors import limit_of, opened_by

MEMORY_KEPT: Final = 20
"""One part in so many of the host's memory is left to the host itself."""
NO_LIMIT: Final = 1 << 60
"""cgroup v1 says a number of this size where nothing limits the memory: PAGE_COUNTER_MAX in linux/page_counter.h."""


class Left(NamedTuple):
    """How much there is, and what says so."""

    amount: int | None
    limit: str


class Controller(NamedTuple):
    """A cgroup controller's files in one version."""

    limit: str
    used: str


_FILES: Final = {
    ("memory", 2): Controller("memory.max", "memory.current"),
    ("memory", 1): Controller("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ("pids", 2): Controller("pids.max", "pids.current"),
    ("pids", 1): Controller("pids.max", "pids.current"),
}


def memory() -> Left:
    """Return the bytes that can be had without swapping, but for what the host keeps."""
    host = psutil.virtual_memory()
    return _least(
        Left(host.available - host.total // MEMORY_KEPT, "MemAvailable"),
        _in_cgroups("memory"),
    )


def disk(directory: Path) -> Left:
    """Return the bytes that this user may still write in the file system of `directory`."""
    status = os.statvfs(directory)
    free = status.f_bfree if os.geteuid() == 0 else status.f_bavail
    return Left(free * status.f_frsize, "free blocks")


def descriptors(pid: int | None) -> Left:
    """Return how many more files a process may open; None is one that is yet to be started by this one."""
    if pid is None:
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        return Left(_finite(hard), "RLIMIT_NOFILE")
    try:
        limit, opened = limit_of(pid), opened_by(pid)
    except OSError:
        return descriptors(None)
    return Left(None if limit is None else limit - opened, "RLIMIT_NOFILE")


def processes() -> Left:
    """Return how many more processes and threads there may be: the kernel counts both as tasks."""
    # The fourth field is running/all scheduling entities: proc_loadavg(5).
    tasks = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    lefts = [Left(_number(f"/proc/sys/kernel/{name}") - tasks, name) for name in ("pid_max", "threads-max")]
    # Root is not held to it: copy_process in kernel/fork.c.
    limit = _finite(resource.getrlimit(resource.RLIMIT_NPROC)[0]) if os.geteuid() else None
    if limit is not None:
        lefts.append(Left(limit - _tasks_of_user(), "RLIMIT_NPROC"))
    return _least(*lefts, _in_cgroups("pids"))


def _tasks_of_user() -> int:
    user, found = os.geteuid(), 0
    for process in psutil.process_iter():
        try:
            if process.uids().real == user:
                found += process.num_threads()
        except psutil.Error:
            continue
    return found


def _least(*lefts: Left) -> Left:
    return min(lefts, key=lambda left: NO_LIMIT if left.amount is None else left.amount)


def _finite(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit


def _number(path: str) -> int:
    return int(Path(path).read_text())


def _in_cgroups(controller: str) -> Left:
    """Return what this process's cgroup and all above it leave, as its children are in it too: cgroups(7)."""
    found = Left(None, "")
    for folder, version in _folders(controller):
        files = _FILES[controller, version]
        try:
            limit = (folder / files.limit).read_text().strip()
            used = _number(str(folder / files.used)) - _reclaimable(folder, controller)
        except (OSError, ValueError):
            continue  # the root of a hierarchy has no limits, and a controller may be off
        if limit != "max" and int(limit) < NO_LIMIT:
            found = _least(found, Left(int(limit) - used, f"{files.limit} of {folder}"))
    return found


def _reclaimable(folder: Path, controller: str) -> int:
    """Return the bytes of the page cache that a cgroup would drop before it is short of memory."""
    if controller != "memory":
        return 0
    stat = dict(line.split(" ", 1) for line in (folder / "memory.stat").read_text().splitlines())
    return int(stat.get("total_inactive_file", stat.get("inactive_file", 0)))


def _folders(controller: str) -> Iterator[tuple[Path, int]]:
    """Yield this process's cgroup with the controller and those above it, each with the version of its hierarchy."""
    memberships = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for number, controllers, path in memberships:
        version = 2 if number == "0" else 1
        if version == 1 and controller not in controllers.split(","):
            continue
        for root, mount in _mounts(controller if version == 1 else None):
            inside = path.removeprefix(root.rstrip("/")).lstrip("/")
            folder = mount / inside
            yield from ((one, version) for one in (folder, *folder.parents) if one.is_relative_to(mount))


def _mounts(controller: str | None) -> Iterator[tuple[str, Path]]:
    """Yield (root, mount point) of the v1 hierarchies of a controller, or for None of the v2 one."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        fits = kind == "cgroup2" if controller is None else kind == "cgroup" and controller in options.split(",")
        if fits:
            root, mount = before.split()[3:5]
            yield root, Path(mount)
