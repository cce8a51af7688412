"""What this supervisor and this host can do, in hypeman's shape."""

import platform
from collections.abc import Mapping

from supervisor.models import HypervisorName

FEATURES = ("instances", "images", "logs", "fan-out", "events")
RUNTIME_FEATURES = ("snapshots", "standby", "fork", "pause")
API_VERSION = "0.1.0"


def describe(version: str, default: HypervisorName, problems: Mapping[HypervisorName, str | None]) -> dict[str, object]:
    """Return hypeman's Capabilities; `problems` says for each hypervisor why it cannot run here, or None.

    A runtime that cannot run carries the reason as `unavailable_reason`.
    """
    architecture = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    runtimes = [
        {
            "name": name,
            "available": problem is None,
            "features": list(RUNTIME_FEATURES),
            **({"unavailable_reason": problem} if problem else {}),
        }
        for name, problem in sorted(problems.items())
    ]
    return {
        "server": {"version": version, "api_version": API_VERSION},
        "host": {"os": "linux", "arch": architecture},
        "features": list(FEATURES),
        "runtimes": runtimes,
        "default_runtime": {"name": default, "available": problems.get(default) is None},
        "images": {"default_platform": f"linux/{architecture}", "platforms": [f"linux/{architecture}"]},
        "network": {"model": "bridge", "guest_to_guest": False},
    }
