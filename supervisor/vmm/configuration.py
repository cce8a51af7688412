"""A VM's configuration in the format of Firecracker's --config-file, as the requests that say the same. Pure."""

import re
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


_FIELD: Final = re.compile(r"\{(\w+)\}")
_RESOURCE_ID: Final = re.compile(r"[A-Za-z0-9_]+")
"""What Firecracker takes for one (checked_id in its src/firecracker/src/api_server/parsed_request.rs)."""

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


def requests(config: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path and the body of each PUT that configures the VM; sections that are null or unknown have none.

    Raises ValueError, which says what is wrong, where a section's requests cannot be made of it.
    """
    if not isinstance(config, Mapping):
        raise ValueError("it has to be an object")
    _check_boot_args(config.get("boot-source"))
    for section, path in SECTIONS.items():
        content = config.get(section)
        if content is None:
            continue
        field = _FIELD.search(path)
        if field is not None:
            yield from ((path.format_map(entry), entry) for entry in _entries(section, content, field[1]))
        else:
            yield path, content


def _entries(section: str, content: Any, field: str) -> Iterator[Mapping[str, Any]]:
    if not isinstance(content, list):
        raise ValueError(f"{section}: it has to be a list")
    for entry in content:
        name = entry.get(field) if isinstance(entry, Mapping) else None
        # It is part of a path, which may not lead to another request.
        if not isinstance(name, str) or _RESOURCE_ID.fullmatch(name) is None:
            raise ValueError(f"{section}: each entry has to be an object whose {field} has letters, digits and _ only")
        yield entry


def _check_boot_args(boot_source: Any) -> None:
    # Firecracker does not refuse it, and panics when it is to start (src/vmm/src/arch/x86_64/mod.rs).
    if isinstance(boot_source, Mapping) and "\0" in str(boot_source.get("boot_args")):
        raise ValueError("boot-source.boot_args: no kernel command line holds a NUL")
