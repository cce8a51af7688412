"""The jails of a home: where they are, whose, and what of them is left."""

import json
from collections.abc import Iterator, Set
from pathlib import Path
from typing import NamedTuple

from supervisor.models import HostSnapshot
from supervisor.system.own_cgroups import CgroupsMissingError, OwnCgroups
from supervisor.system.processes import proc_file, status_field
from tests.harness.supervisor_process import Home
from tests.harness.waiting import until


class Identity(NamedTuple):
    """What a process may."""

    uid: int
    gid: int
    groups: str
    capabilities: tuple[int, ...]
    """CapInh, CapPrm, CapEff, CapBnd and CapAmb of proc_pid_status(5)."""
    no_new_privileges: bool
    seccomp: int
    cgroups: frozenset[str]
    """The names that it has, one for each hierarchy that has it in another cgroup than the root."""


def jail_root(home: Home, instance_id: str) -> Path:
    """Return what an instance's VMM has as its root, if it is jailed."""
    return home.data / "jail" / "firecracker" / instance_id / "root"


def jail_uid(home: Home, instance_id: str) -> int | None:
    """Return whose an instance's VMM is by its record."""
    uid: int | None = json.loads((home.data / "instances" / instance_id / "instance.json").read_text())["jail_uid"]
    return uid


def api_socket(home: Home, instance_id: str) -> Path:
    """Return where an instance's VMM answers, in a jail or not."""
    root = jail_root(home, instance_id)
    return root / "api.sock" if root.exists() else home.run / f"{instance_id}.sock"


def identity(pid: int) -> Identity:
    """Return what a process may, by /proc."""
    told = {name: status_field(pid, name) or "" for name in ("Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp")}
    capabilities = (status_field(pid, f"Cap{kind}") or "0" for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"))
    paths = (line.split(":", 2) for line in proc_file(pid, "cgroup").decode().splitlines())
    return Identity(
        int(told["Uid"].split()[1]),
        int(told["Gid"].split()[1]),
        told["Groups"],
        tuple(int(one, 16) for one in capabilities),
        told["NoNewPrivs"] == "1",
        int(told["Seccomp"]),
        frozenset(f"{names or 'unified'}:{path}" for _, names, path in paths if "/forktui/" in path),
    )


def left_of_jails(home: Home, running: Set[str] = frozenset()) -> Iterator[str]:
    """Yield what there is of jails but those of instances that run: directories, what was set aside, cgroups."""
    jails = home.data / "jail"
    if jails.exists():
        there = {path.name for path in (jails / "firecracker").glob("*")}
        yield from (f"jail {name}" for name in sorted(there - running))
        yield from (f"jail set aside {path}" for path in jails.glob(".deleted-*"))
        yield from (f"cgroup {name}" for name in sorted(set(cgroups(home)) - running))


async def until_jails_are_gone(home: Home, host: HostSnapshot) -> None:
    """Return when no jails are left but of those that run: they go after the end of a VM was told."""
    running = {one.id for one in host.instances if one.vmm_pid is not None}
    await until(lambda: not list(left_of_jails(home, running)))


def cgroups(home: Home) -> tuple[str, ...]:
    """Return the instances of a home that have a cgroup."""
    try:
        own = OwnCgroups.open(home.data.resolve())
    except CgroupsMissingError:
        return ()
    found = own.instances()
    # It may be of a supervisor that has ended: what nothing is in is nobody's.
    own.leave()
    return found
