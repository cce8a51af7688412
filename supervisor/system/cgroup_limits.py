"""What a cgroup of a VM is held to, and what it uses: as the files of either version have it. Blocks on those."""

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, NamedTuple

CONTROLLERS: Final = ("memory", "pids", "cpu")
DEFAULT_WEIGHT: Final = 100
"""CGROUP_WEIGHT_DFL of include/linux/cgroup-defs.h: what a cgroup has that nobody gave another."""
LEAST_SHARES: Final = 2
"""MIN_SHARES of kernel/sched/sched.h."""
_MOST_BYTES: Final = 1 << 16


class CgroupLimits(NamedTuple):
    """What a VM may use: None sets no bound."""

    memory_bytes: int | None
    pids: int | None
    """Threads count, each as one."""
    cpu_weight: int
    """1 to 10,000, as in cpu.weight: the share of the processors where they are short."""


class CgroupUsage(NamedTuple):
    """What a cgroup uses; None where no controller counts it."""

    memory_bytes: int | None
    """The page cache of what was first read or written in it included."""
    cpu_seconds: float
    pids: int | None
    memory_max_bytes: int | None
    """None also where it has no bound."""


class Place(NamedTuple):
    """The directory of a cgroup in the hierarchy that has a controller, and the version of that."""

    folder: Path
    version: int


class Setting(NamedTuple):
    """What a file of a cgroup is to say."""

    controller: str
    file: str
    value: int
    if_there: bool = False
    """The kernel may have no such file."""


def settings(limits: CgroupLimits, versions: Mapping[str, int]) -> Iterator[Setting]:
    """Yield the settings that limits come to; `versions` has for each controller that of its hierarchy, 2 if missing.

    What of a VM's memory is swapped out is bounded as well. Not forbidden: a host that swaps idle guests out goes on
    doing so. The first version bounds both together, the second each by itself.
    """
    if limits.memory_bytes is not None:
        first = versions.get("memory") == 1
        yield Setting("memory", "memory.limit_in_bytes" if first else "memory.max", limits.memory_bytes)
        # No file where the kernel does not count what is swapped.
        swap = "memory.memsw.limit_in_bytes" if first else "memory.swap.max"
        yield Setting("memory", swap, limits.memory_bytes, if_there=True)
    if limits.pids is not None:
        yield Setting("pids", "pids.max", limits.pids)
    if limits.cpu_weight != DEFAULT_WEIGHT:
        if versions.get("cpu") == 1:
            yield Setting("cpu", "cpu.shares", shares(limits.cpu_weight))
        else:
            yield Setting("cpu", "cpu.weight", limits.cpu_weight)


def shares(weight: int) -> int:
    """Return the cpu.shares of a cpu.weight, as sched_weight_from_cgroup of kernel/sched/sched.h has it."""
    return max((weight * 1024 + DEFAULT_WEIGHT // 2) // DEFAULT_WEIGHT, LEAST_SHARES)


def usage(unified: Path, places: Mapping[str, Place]) -> CgroupUsage | None:
    """Return what a cgroup uses, by its directory in the second version and by those of controllers; None if gone."""
    # Also where the second version has no controller: cgroup-v2.rst, cpu.stat.
    spent = number_of(unified / "cpu.stat", "usage_usec")
    if spent is None:
        return None
    memory, pids = places.get("memory"), places.get("pids")
    used = bound = None
    if memory is not None:
        names = ("memory.usage_in_bytes", "memory.limit_in_bytes")
        used, bound = _numbers(memory.folder, names if memory.version == 1 else ("memory.current", "memory.max"))
    (tasks,) = (None,) if pids is None else _numbers(pids.folder, ("pids.current",))
    # What the first version says where there is no bound: PAGE_COUNTER_MAX in linux/page_counter.h.
    return CgroupUsage(used, spent / 1e6, tasks, bound if bound is None or bound < 1 << 60 else None)


def words(path: Path) -> list[str]:
    """Return the words of a cgroup's file, none where it is not there or cannot be read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        parts = []
        while part := os.read(fd, _MOST_BYTES):
            parts.append(part)
    except OSError:
        return []  # ENODEV: the cgroup was removed meanwhile
    finally:
        os.close(fd)
    return b"".join(parts).decode().split()


def number_of(path: Path, key: str) -> int | None:
    """Return the number behind a key in a flat keyed file; None where there is none."""
    found = words(path)
    return int(found[found.index(key) + 1]) if key in found else None


def write(path: Path, value: int | str) -> None:
    """Write into a file of a cgroup; raises OSError, FileNotFoundError where the kernel has no such file."""
    # Without O_CREAT: that is refused with EPERM in place of ENOENT.
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, str(value).encode())
    except OSError as error:
        if error.errno == errno.ENODEV:
            raise FileNotFoundError(errno.ENOENT, "its cgroup was removed", str(path)) from error
        raise OSError(error.errno, f"{value} was refused: {error.strerror}", str(path)) from error
    finally:
        os.close(fd)


def apply(setting: Setting, folder: Path) -> None:
    """Have a cgroup held to something; raises OSError."""
    with contextlib.suppress(*((FileNotFoundError,) if setting.if_there else ())):
        write(folder / setting.file, setting.value)


def _numbers(folder: Path, names: tuple[str, ...]) -> list[int | None]:
    told = [words(folder / name) for name in names]
    return [int(one[0]) if one and one[0].isdecimal() else None for one in told]
