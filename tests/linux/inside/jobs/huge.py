"""A guest in pages of 2 MiB."""

from pathlib import Path
from typing import Final

from tests.linux.inside.host import Host

POOL: Final = Path("/proc/sys/vm/nr_hugepages")
PAGES: Final = "400"
"""For three guests of 256 MiB."""


def run(host: Host) -> None:
    """Begin with a source; end with an empty pool."""
    POOL.write_text(PAGES)
    host.create("huge", "huge")
    host.goes_on("huge")
    host.verb("huge", "standby")
    host.fan_out("huge", 2, "leaf")
    host.goes_on("leaf-1", "leaf-2")
    host.see("pages", {name: host.statistics(name)["pages"] for name in ("leaf-1", "leaf-2")})
    host.delete("huge")
    POOL.write_text("0")
    host.see("pool", int(POOL.read_text()))
