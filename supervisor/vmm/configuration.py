"""A VM's configuration in the format of Firecracker's --config-file, as the requests that say the same. Pure."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

LARGEST_JSON: Final = 1 << 20
"""Bytes of a vm.json, or of a CPU template; they have some thousand."""

SECTIONS: Final = {
    "machine-config": "/machine-config",
    "cpu-config": "/cpu-config",
    "boot-source": "/boot-source",
    "drives": "/drives/{drive_id}",
    "network-interfaces": "/network-interfaces/{iface_id}",
    "vsock": "/vsock",
    "balloon": "/balloon",
    "mmds-config": "/mmds/config",
    "entropy": "/entropy",
    "pmem": "/pmem/{id}",
    "memory-hotplug": "/hotplug/memory",
}
"""Each section's request, in the order in which Firecracker applies them (VmResources::from_json): mmds-config names
network interfaces. A path with a field has one request for each entry of the section's list."""


Device = Literal["balloon", "balloon-statistics", "vsock", "memory-hotplug", "async-drive"]


def devices(config: Mapping[str, Any]) -> frozenset[Device]:
    """Return which devices the VM has that supervisor/rules/firecracker_versions.py asks for.

    `config` is that of a config file, or of the answer to `GET /vm/config`. Raises AttributeError where it is neither.
    """
    balloon, drives = config.get("balloon"), config.get("drives") or ()
    found: dict[Device, object] = {
        "balloon": balloon is not None,
        "balloon-statistics": balloon is not None and balloon.get("stats_polling_interval_s"),
        "vsock": config.get("vsock") is not None,
        "memory-hotplug": config.get("memory-hotplug") is not None,
        "async-drive": any(drive.get("io_engine") == "Async" for drive in drives),
    }
    return frozenset(name for name, present in found.items() if present)


def requests(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the path and the body of each PUT that configures the VM; sections that are null or unknown have none."""
    for section, path in SECTIONS.items():
        content = config.get(section)
        if content is None:
            continue
        for body in content if "{" in path else (content,):
            yield path.format_map(body), body
