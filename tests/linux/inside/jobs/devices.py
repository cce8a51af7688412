"""A guest with a balloon and a network interface, whose clock is set by the host's."""

import subprocess
from functools import partial
from typing import Any, Final

from tests.linux.inside.host import Host
from tests.linux.told import Stamps

BALLOON_MIB: Final = 32
BALLOON_PAGES: Final = (BALLOON_MIB << 20) // 4096
TAP: Final = "tap0"


def run(host: Host) -> None:
    """Begin with a source; end with nothing left."""
    subprocess.run(f"ip tuntap add {TAP} mode tap && ip link set {TAP} up", shell=True, check=True)
    host.create("devices", "devices")
    host.goes_on("devices")
    host.verb("devices", "standby")
    answer = host.verb("devices", "fan-out", count=2, name_prefix="twin")
    host.see("errors", [one["error"]["message"] for one in answer["children"] if one.get("error")])
    # There is one tap: which of the two is first is nobody's to say.
    (fork,) = (one["name"] for one in answer["children"] if not one.get("error"))
    host.see("fork", fork)
    host.goes_on(fork)
    removed = host.statistics(fork)["pages"]["removed_pages"]
    host.ask_vmm(fork, "PATCH", "/balloon", {"amount_mib": BALLOON_MIB})
    host.until_balloon_has(fork, BALLOON_MIB)
    # Counted by the page server, which is told of each after it has gone.
    gone = host.until_statistics(fork, "less the balloon", partial(_has_lost, removed + BALLOON_PAGES))
    host.see("removed", gone["pages"]["removed_pages"] - removed)
    host.goes_on(fork, more=1)
    host.ask_vmm(fork, "PATCH", "/balloon", {"amount_mib": 0})
    host.until_balloon_has(fork, 0)
    host.verb(fork, "standby")
    host.verb(fork, "restore")
    host.goes_on(fork)
    host.see("stamps", host.stamps(fork, Stamps.agree))
    host.delete("devices")


def _has_lost(pages: int, statistics: Any) -> bool:
    return bool(statistics["pages"]["removed_pages"] >= pages)
