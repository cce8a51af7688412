"""What this supervisor and this host can do, in hypeman's shape."""

import platform
from collections.abc import Mapping

from supervisor.models import HypervisorName, Jails
from supervisor.rules.firecracker_versions import TESTED, Fault, faults, notice
from supervisor.system import oom_score
from supervisor.vmm.hypervisor import Hypervisor

FEATURES = ("instances", "images", "logs", "fan-out", "events")
RUNTIME_FEATURES = ("snapshots", "standby", "fork", "pause")
API_VERSION = "0.1.0"


def describe(
    version: str, default: HypervisorName, found: Mapping[HypervisorName, Hypervisor | str], jails: Jails
) -> dict[str, object]:
    """Return hypeman's Capabilities; `found` has each hypervisor, or why it cannot run here.

    A runtime that can run carries its `version`, and the `snapshot_version` that it writes, which is the newest that it
    loads; one that cannot carries the reason as `unavailable_reason`. `known_faults` are those of the version of
    Firecracker that it is, or answers as, with what is done about them; `tested` says whether forktui's tests ran it.
    The host's `oom_score_adj` is what decides whom the kernel ends first when memory runs out. `jails` says what
    VMMs and page servers may do that are started now.
    """
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    return {
        "server": {"version": version, "api_version": API_VERSION},
        "host": {"os": "linux", "arch": architecture, "oom_score_adj": oom_score.scores()._asdict()},
        "jails": jails.model_dump(mode="json"),
        "features": list(FEATURES),
        "runtimes": [_runtime(name, one) for name, one in sorted(found.items())],
        "default_runtime": {"name": default, "available": isinstance(found.get(default), Hypervisor)},
        "images": {"default_platform": f"linux/{architecture}", "platforms": [f"linux/{architecture}"]},
        "network": {"model": "bridge", "guest_to_guest": False},
    }


def _runtime(name: HypervisorName, found: Hypervisor | str) -> dict[str, object]:
    runtime: dict[str, object] = {"name": name, "features": list(RUNTIME_FEATURES)}
    if isinstance(found, str):
        return {**runtime, "available": False, "unavailable_reason": found}
    return {
        **runtime,
        "available": True,
        "version": found.version,
        "snapshot_version": found.snapshot_version,
        "tested": found.firecracker_version in (None, *TESTED),
        "notice": notice(found.firecracker_version),
        "known_faults": [_fault(one) for one in faults(found.firecracker_version)],
    }


def _fault(fault: Fault) -> dict[str, str]:
    return {
        "name": fault.name,
        "versions": fault.versions,
        "what": fault.what,
        "action": fault.action,
        "doing": fault.doing,
        "source": fault.source,
    }
