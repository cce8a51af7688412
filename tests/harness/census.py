"""What a supervisor at rest has open, in memory and on the disk: the figures that a long run must not make grow."""

import os
import re
import stat
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psutil

from supervisor.models import Template
from tests.harness.supervisor_process import Home, console_holder

MIB: Final = 1 << 20
CGROUPS: Final = Path("/sys/fs/cgroup")


def census(home: Home, supervisor: int, template: Template) -> Mapping[str, float]:
    """Return the figures of a home: of its supervisor, of one template's page server, of its files and processes."""
    page_server = template.page_server_pid
    assert page_server is not None, f"template {template.id} has no page server"
    page_server_log = home.data / "templates" / template.id / "page_server.log"
    holder = console_holder(home)
    assert holder is not None, "there is no console holder"
    found = descriptors(supervisor)
    data, run = _files(home.data), _files(home.run)
    return {
        "descriptors": found.total(),
        "of sockets": found["socket"],
        "of pidfds": found["pidfd"],
        "of inotify": found["inotify"],
        "threads": psutil.Process(supervisor).num_threads(),
        **_memory(supervisor),
        "page server's descriptors": descriptors(page_server).total(),
        "page server's threads": psutil.Process(page_server).num_threads(),
        "page server's private MiB": _memory(page_server)["private MiB"],
        "console holder's descriptors": descriptors(holder).total(),
        "console holder's threads": psutil.Process(holder).num_threads(),
        "console holder's private MiB": _memory(holder)["private MiB"],
        "data files": len(data),
        "data MiB": sum(status.st_blocks * 512 for status in data) / MIB,
        "run files": len(run),
        "run sockets": sum(stat.S_ISSOCK(status.st_mode) for status in run),
        "kernel sockets": _bound_sockets(home.root),
        "processes": len(home.processes()),
        "cgroups": _cgroups(home),
        "huge pages": _huge_pages(),
        "log KiB": (home.root / "supervisor.log").stat().st_size / 1024,
        "page server's log KiB": page_server_log.stat().st_size / 1024,
    }


def descriptors(pid: int) -> Counter[str]:
    """Return how many descriptors of each kind a process has open."""
    kinds: Counter[str] = Counter()
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(path.readlink())
        except FileNotFoundError:
            continue
        # `socket:[1]`, `pidfd:[1]` or `anon_inode:[pidfd]`, `anon_inode:inotify`, a path.
        kinds["file" if target.startswith("/") else re.findall("[a-z]+", target.removeprefix("anon_inode:"))[0]] += 1
    return kinds


def _memory(pid: int) -> dict[str, float]:
    """Return what proc_pid_smaps(5) sums up, in MiB."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    sizes = {name: int(size) for name, size in re.findall(r"^(\w+): +(\d+) kB$", rollup, re.MULTILINE)}
    private = sizes["Private_Clean"] + sizes["Private_Dirty"]
    return {"RSS MiB": sizes["Rss"] / 1024, "private MiB": private / 1024}


def _files(directory: Path) -> list[os.stat_result]:
    """Return the files below a directory, of which one with several names is one."""
    found = (path.lstat() for path in directory.rglob("*"))
    return list({status.st_ino: status for status in found if not stat.S_ISDIR(status.st_mode)}.values())


def _bound_sockets(root: Path) -> int:
    """Return how many sockets have or had a name below a directory, removed or not."""
    # A name has any bytes.
    return Path("/proc/net/unix").read_bytes().count(f" {root}/".encode())


def _cgroups(home: Home) -> int:
    """Return how many cgroups bear the name of this home."""
    return sum(home.root.name in name for _, names, _ in os.walk(CGROUPS) for name in names)


def _huge_pages() -> int:
    """Return how many huge pages of the pool are in use or promised, whoever has them."""
    pool = dict(re.findall(r"^HugePages_(\w+): +(\d+)$", Path("/proc/meminfo").read_text(), re.MULTILINE))
    return int(pool["Total"]) - int(pool["Free"]) + int(pool["Rsvd"])
