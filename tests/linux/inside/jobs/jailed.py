"""Firecracker in jails where there is version 2 of cgroups alone: what holds a VM, and what ends it."""

from pathlib import Path
from typing import Any, Final

from supervisor.system.cgroups import Group, is_alone
from supervisor.system.processes import status_field
from tests.linux.inside.host import DATA, ENDED, Host

OVERHEAD: Final = 64 << 20
THREADS: Final = 16
WEIGHT: Final = 50
UNIFIED: Final = Path("/sys/fs/cgroup")
SHORT: Final = 4 << 20
"""Bytes, of a VM that needs more."""
FORKS: Final = ("killed", "short")


def run(host: Host, jailer: str) -> None:
    """Begin with a source; end with nothing left."""
    bounds = ("--jail-memory-overhead", str(OVERHEAD), "--jail-pids", str(THREADS), "--jail-cpu-weight", str(WEIGHT))
    try:
        host.supervise("--jail", "on", "--jailer", jailer, *bounds)
        _ways(host)
    finally:
        host.supervise()
    host.see("left", [*host.left(), *_left()])


def _ways(host: Host) -> None:
    host.create("jailed", "plain")
    host.goes_on("jailed", more=1)
    host.see("source", _identity(host, "jailed"))
    host.verb("jailed", "standby")
    for name in FORKS:
        host.fork("jailed", name)
        host.goes_on(name, more=1)
        host.see(name, _identity(host, name))
    host.see("stats", host.until_statistics("killed", "with a cgroup", _is_charged))
    (_group(host, "killed") / "cgroup.kill").write_text("1")
    host.see("killed instance", host.until_state("killed", *ENDED))
    # Below what it has: the kernel takes what can be had again, and then ends it.
    (_group(host, "short") / "memory.max").write_text(str(SHORT))
    host.see("short instance", host.until_state("short", *ENDED))
    for name in FORKS:
        host.delete(name)
    host.verb("jailed", "restore")
    host.goes_on("jailed", more=1)
    host.see("restored", _identity(host, "jailed"))
    host.delete("jailed")


def _group(host: Host, name: str) -> Path:
    """Return the cgroup of an instance's VMM."""
    told = Path(f"/proc/{host.get(name)['vmm_pid']}/cgroup").read_text()
    return UNIFIED / told.strip().removeprefix("0::/")


def _identity(host: Host, name: str) -> dict[str, Any]:
    """Return whose a VMM is, what it may, and what it is held to."""
    pid, group = host.get(name)["vmm_pid"], _group(host, name)
    fields = ("Uid", "CapEff", "NoNewPrivs", "Seccomp")
    files = ("memory.max", "pids.max", "cpu.weight")
    return (
        {field: status_field(pid, field) for field in fields}
        | {file: int((group / file).read_text()) for file in files}
        | {"instance": host.get(name)["id"], "group": group.name, "alone": is_alone(pid, Group(group, 2))}
    )


def _is_charged(statistics: Any) -> bool:
    return bool(statistics.get("cgroup_memory_bytes"))


def _left() -> list[str]:
    """Return what is there of jails: their files, but for what they are made with, and their cgroups."""
    files = (DATA / "jail" / "firecracker").rglob("*")
    return [str(path) for path in (*files, *UNIFIED.glob("forktui/*/*/"))]
