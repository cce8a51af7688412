"""A guest of more than 3 GiB, whose clock is set by the host's: diff layers, and forks of them."""

import time
from typing import Any, Final

from tests.linux.inside.host import Host
from tests.linux.told import Stamps

IMAGE: Final = "large"
RESTED: Final = 5.0
"""Seconds for which the source has lain in Standby at least, when the forks are made whose clocks are looked at."""


def run(host: Host) -> None:
    """Begin with a source; end with nothing left."""
    host.create("large", IMAGE)
    host.goes_on("large", more=2)
    host.verb("large", "standby")
    since = time.monotonic()
    host.see("source", [host.get("large"), _machine(host, "large")])
    host.fork("large", "first")
    while time.monotonic() - since < RESTED:
        host.goes_on("first", more=1)
    host.verb("first", "stop")
    host.fan_out("large", 2, "big")
    host.goes_on("big-1", "big-2")
    host.see("stamps", {name: host.stamps(name, Stamps.agree) for name in ("big-1", "big-2")})
    host.verb("big-1", "standby")
    host.see("layers", _machine(host, "big-1"))
    host.verb("big-1", "restore")
    host.goes_on("big-1")
    host.delete("large")


def _machine(host: Host, name: str) -> Any:
    return host.ask("GET", f"/instances/{name}/machine")[1]
