"""A guest of two vCPUs with a disk, entropy and vsock: standby, forks of every kind, a supervisor that is killed."""

import time
from typing import Final

from tests.linux.inside.host import Host
from tests.linux.told import CLOCK_STEP, Stamps

IMAGE: Final = "full"
VSOCK_PORT: Final = 52
RESTED: Final = 5.0
"""Seconds for which the source has lain in Standby at least: clocks of forks that are made then are behind by that."""


def run(host: Host) -> None:
    """Begin with a source; end with nothing left."""
    host.create("source", IMAGE)
    host.goes_on("source", more=3)
    host.verb("source", "standby")
    since = time.monotonic()
    host.fork("source", "warm", record="on")
    host.goes_on("warm")
    while time.monotonic() - since < RESTED:
        host.goes_on("warm", more=1)
    host.fan_out("source", 2, "fork")
    host.goes_on("fork-1", "fork-2")
    host.see("stamps", {name: host.stamps(name, are_behind) for name in ("fork-1", "fork-2")})
    host.see("pages", {name: host.statistics(name)["pages"] for name in ("fork-1", "fork-2")})
    host.see("over_vsock", {name: host.over_vsock(name, VSOCK_PORT) for name in ("fork-1", "fork-2")})
    host.see("refusal", host.ask("POST", "/instances/source/restore", {}))
    # Each guest that runs makes all others slower: what has shown what it is for is stopped.
    host.verb("warm", "stop")
    host.verb("fork-1", "standby")
    host.verb("fork-1", "restore")
    host.goes_on("fork-1")
    host.verb("fork-2", "detach")
    host.see("locked_by", host.get("source")["locked_by"])
    host.verb("fork-2", "checkpoint", name="checkpoint")
    host.goes_on("fork-2")
    host.verb("fork-2", "stop")
    host.fork("checkpoint", "grandchild")
    host.fork("source", "of-file", memory_backend="file")
    host.goes_on("grandchild", "of-file")
    before = {one["name"]: one["vmm_pid"] for one in host.ask("GET", "/instances")[1] if one["vmm_pid"]}
    host.kill_supervisor()
    host.see("vmms", [before, {name: host.get(name)["vmm_pid"] for name in before}])
    host.goes_on(*before, more=1)
    host.delete("source")
    host.see("left", host.left())


def are_behind(stamps: Stamps) -> bool:
    """Say whether a guest's clock is behind by what its source lay in Standby, however late its tick was."""
    return stamps.before - stamps.guest >= RESTED - CLOCK_STEP
