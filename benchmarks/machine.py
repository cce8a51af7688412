"""What a run was made on."""

import os
import platform
import resource
from pathlib import Path
from typing import Any

import psutil

from benchmarks.bench import Bench


def describe(bench: Bench) -> dict[str, Any]:
    """Return the machine and its load, for a run that is about to begin."""
    firecracker = bench.firecracker
    return {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
        "page_size": resource.getpagesize(),
        "firecracker": None if isinstance(firecracker, str) else firecracker.version,
        "python": platform.python_version(),
        "file_system": _file_system(bench.folder),
        "load_averages": [round(load, 2) for load in os.getloadavg()],
    }


def as_line(machine: dict[str, Any]) -> str:
    """Return the same in one line."""
    firecracker = f"Firecracker {machine['firecracker']}" if machine["firecracker"] else "no Firecracker"
    loads = " ".join(f"{load:.2f}" for load in machine["load_averages"])
    return (
        f"machine: Linux {machine['kernel']} {machine['machine']}, {machine['cores']} cores, "
        f"{machine['memory_bytes'] / 2**30:.0f} GiB, pages of {machine['page_size']} bytes, "
        f"{firecracker}, Python {machine['python']}, {machine['file_system']}, load {loads}"
    )


def _file_system(folder: Path) -> str:
    """Return the type of the file system that a directory is in."""
    mounts = sorted(psutil.disk_partitions(all=True), key=lambda mount: len(mount.mountpoint), reverse=True)
    return next((mount.fstype for mount in mounts if folder.is_relative_to(mount.mountpoint)), "unknown")
