"""What the host has left for more VMs, as the kernel tells: memory, descriptors, processes, disk. Blocks on /proc."""

import os
import resource
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from supervisor.system.cgroups import Group, Hierarchies, is_alone
from supervisor.system.descriptors import limit_of, opened_by
from supervisor.system.own_cgroups import is_of_one_vm

MEMORY_KEPT: Final = 20
"""One part in so many of the host's memory is left to the host itself."""
NO_LIMIT: Final = 1 << 60
"""cgroup v1 says a number of this size where nothing limits the memory: PAGE_COUNTER_MAX in linux/page_counter.h."""


class Left(NamedTuple):
    """How much there is, what says so, and of which cgroup that is; None where it is of the host."""

    amount: int | None
    limit: str
    group: Group | None = None


class Bound(NamedTuple):
    """The files of a cgroup that bound what it uses."""

    limit: str
    used: str


_BOUNDS: Final = {
    # Above memory.high whatever is in it is slowed down until it is below: cgroup-v2.rst.
    ("memory", 2): (Bound("memory.max", "memory.current"), Bound("memory.high", "memory.current")),
    # The second is of memory and swap together.
    ("memory", 1): (
        Bound("memory.limit_in_bytes", "memory.usage_in_bytes"),
        Bound("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
    ),
    ("pids", 2): (Bound("pids.max", "pids.current"),),
    ("pids", 1): (Bound("pids.max", "pids.current"),),
}
_RECLAIMABLE: Final = {
    2: ("inactive_file", "active_file", "slab_reclaimable"),
    1: ("total_inactive_file", "total_active_file"),
}
"""Of memory.stat, what MemAvailable has of the whole host: si_mem_available in mm/show_mem.c."""


def memory(vmms: Iterable[int] = ()) -> list[Left]:
    """Return the bytes that can be had without swapping: of the host, but for what it keeps, and of each cgroup.

    Those are the groups that this process is in, as what it starts is too, and those that its `vmms` were moved into,
    as the next may be: but for one that a VMM has for itself.
    """
    host = psutil.virtual_memory()
    return [Left(host.available - host.total // MEMORY_KEPT, "MemAvailable"), *_in_cgroups("memory", vmms)]


def inside(group: Group, pids: Iterable[int]) -> set[int]:
    """Return which processes use what a cgroup may use of memory."""
    hierarchies = Hierarchies.mounted()
    return {pid for pid in pids if group in hierarchies.groups_of(pid, "memory")}


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


def processes(vmms: Iterable[int] = ()) -> Left:
    """Return how many more processes and threads there may be, the kernel counts both as tasks, in cgroups as well."""
    # The fourth field is running/all scheduling entities: proc_loadavg(5).
    tasks = int(Path("/proc/loadavg").read_text().split()[3].partition("/")[2])
    lefts = [Left(_number(f"/proc/sys/kernel/{name}") - tasks, name) for name in ("pid_max", "threads-max")]
    # Root is not held to it: copy_process in kernel/fork.c.
    limit = _finite(resource.getrlimit(resource.RLIMIT_NPROC)[0]) if os.geteuid() else None
    if limit is not None:
        lefts.append(Left(limit - _tasks_of_user(), "RLIMIT_NPROC"))
    return least(*lefts, *_in_cgroups("pids", vmms))


def _tasks_of_user() -> int:
    user, found = os.geteuid(), 0
    for process in psutil.process_iter():
        try:
            if process.uids().real == user:
                found += process.num_threads()
        except psutil.Error:
            continue
    return found


def least(*lefts: Left) -> Left:
    """Return that of which there is least."""
    return min(lefts, key=lambda left: NO_LIMIT if left.amount is None else left.amount)


def _finite(limit: int) -> int | None:
    return None if limit == resource.RLIM_INFINITY else limit


def _number(path: str) -> int:
    return int(Path(path).read_text())


def _in_cgroups(controller: str, vmms: Iterable[int]) -> list[Left]:
    hierarchies = Hierarchies.mounted()
    groups = dict.fromkeys(hierarchies.groups_of("self", controller))
    for pid in vmms:
        own = hierarchies.groups_of(pid, controller)
        if own and own[0] not in groups:
            its_own = is_of_one_vm(own[0].folder) or is_alone(pid, own[0])
            groups |= dict.fromkeys(own[1:] if its_own else own)
    return [left for group in groups for left in _left_in(group, controller)]


def _left_in(group: Group, controller: str) -> Iterator[Left]:
    for bound in _BOUNDS[controller, group.version]:
        try:
            told = (group.folder / bound.limit).read_text().strip()
            limit = NO_LIMIT if told == "max" else int(told)
            if limit >= NO_LIMIT:
                continue
            used = _number(str(group.folder / bound.used))
            if controller == "memory":
                used -= min(_reclaimable(group), used)
        except (OSError, ValueError):
            continue  # the root of a hierarchy has no limits, and a controller may be off
        size = f"{limit >> 20} MiB" if controller == "memory" else str(limit)
        yield Left(limit - used, f"{bound.limit} ({size}) of {group.folder}", group)


def _reclaimable(group: Group) -> int:
    """Return the bytes that a cgroup would give up before it is short of memory."""
    lines = map(str.split, (group.folder / "memory.stat").read_text().splitlines())
    return sum(int(line[1]) for line in lines if len(line) == 2 and line[0] in _RECLAIMABLE[group.version])
