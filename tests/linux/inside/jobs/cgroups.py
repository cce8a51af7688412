"""Cgroups of VMs where there is version 2 alone: what each bound does, and what an end ends."""

import subprocess
from pathlib import Path
from typing import Final

from supervisor.system.cgroup_limits import CgroupLimits, words
from supervisor.system.own_cgroups import OwnCgroups
from tests.linux.inside.host import Host

MIB: Final = 1 << 20
MEMORY: Final = 32 * MIB
PIDS: Final = 3
WEIGHT: Final = 50
LIMITS: Final = CgroupLimits(MEMORY, PIDS, WEIGHT)
NO_LIMITS: Final = CgroupLimits(None, None, 100)
TREE: Final = "for one in 1 2 3; do (sleep 600 & sleep 600 & echo two; wait) & done; wait"
"""A shell with three below it, each of which has two."""


def run(host: Host) -> None:
    """Begin with no cgroup of a VM; end with none."""
    own = OwnCgroups.open(Path("/tmp/cgroups-of-this-job"))
    top = own._mount.folder
    host.see("problem", own.problem(LIMITS))
    levels = (top, top / "forktui", own._unified)
    host.see("passed on", [words(level / "cgroup.subtree_control") for level in levels])
    own.make("limits", LIMITS)
    files = ("memory.max", "memory.swap.max", "pids.max", "cpu.weight")
    host.see("files", {name: words(own._unified / "limits" / name) for name in files})
    host.see("removed", own.remove("limits"))
    _memory(host, own)
    _tasks(host, own)
    _tree(host, own)
    host.see("instances", own.instances())
    own.leave()
    host.see("left", [str(path) for path in top.glob("**/forktui")])


def _memory(host: Host, own: OwnCgroups) -> None:
    """Have a program take memory for as long as it gets some: a line without an end."""
    own.make("memory", CgroupLimits(MEMORY, None, 100))
    with _started(own, "memory", "exec tail /dev/zero") as process:
        host.see("memory ended by", process.wait())
    events = words(own._unified / "memory" / "memory.events")
    host.see("memory events", dict(zip(events[::2], map(int, events[1::2]), strict=True)))
    host.see("memory usage", own.usage("memory"))
    host.see("memory removed", own.remove("memory"))


def _tasks(host: Host, own: OwnCgroups) -> None:
    """Have a shell start more than it may."""
    own.make("pids", CgroupLimits(None, PIDS, 100))
    with _started(own, "pids", "for one in 1 2 3 4; do sleep 600 & done") as process:
        # What it has started keeps its outputs open.
        host.see("pids ended by", process.wait())
        events = words(own._unified / "pids" / "pids.events")
        host.see("pids refused", int(events[events.index("max") + 1]))
        own.kill("pids")
    host.see("pids removed", own.until_empty("pids") and own.remove("pids"))


def _tree(host: Host, own: OwnCgroups) -> None:
    """End a tree of processes at once."""
    own.make("tree", NO_LIMITS)
    with _started(own, "tree", TREE) as process:
        assert process.stdout is not None
        for _ in range(3):
            process.stdout.readline()
        host.see("tree processes", len(own.processes("tree")))
        host.see("tree has", [own.has("tree", process.pid), own.has("tree", 1)])
        host.see("tree removed while it runs", own.remove("tree"))
        own.kill("tree")
        host.see("tree ended by", process.wait())
    host.see("tree removed", own.until_empty("tree") and own.remove("tree"))


def _started(own: OwnCgroups, name: str, script: str) -> subprocess.Popen[str]:
    """Start a shell in a cgroup, as the jailer does: by itself, before it is anything else."""
    procs = own._mount.folder / own.parent(name) / "cgroup.procs"
    command = ("sh", "-c", f"echo $$ >{procs}; {script}")
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
