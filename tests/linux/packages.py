"""What the suite needs of Debian, unpacked into the cache: nothing is installed, and nobody has to be root.

`python -m tests.linux.packages` gets it, and shows why where it cannot.
"""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.harness.checkout import ROOT
from tests.harness.firecracker import Unavailable

CACHE: Final = ROOT / ".cache" / "linux"
KERNEL_OF: Final = "linux-image-amd64"
"""Debian's ordinary kernel, of which it names the newest: the cloud kernel has no VMGENID."""
GUESTS: Final = ("busybox-static", "chrony", "linuxptp", "socat")
PROGRAMS: Final = {"qemu-system-x86_64": "qemu-system-x86", "mke2fs": "e2fsprogs"}
"""What runs on this machine, and of which package; one that is installed is used."""
PATH: Final = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"))
LIBRARIES: Final = ("usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu")
PACKAGES_TIMEOUT: Final = 300.0
"""Seconds for some 90 MB."""
TO_SEE_WHY: Final = f"cd {ROOT} && {sys.executable} -m tests.linux.packages"


@dataclass(frozen=True)
class Debian:
    """What was unpacked, as a tree that begins at its root."""

    root: Path

    @property
    def vmlinuz(self) -> Path:
        """The kernel, as a bzImage."""
        return next(self.root.glob("boot/vmlinuz-*"))

    @property
    def modules(self) -> Path:
        """The kernel's modules."""
        return next(self.root.glob("*lib/modules/*" if (self.root / "lib").is_dir() else "usr/lib/modules/*"))

    def file(self, *places: str) -> Path:
        """Return the first of these places in the tree that has a file. Raises Unavailable."""
        for place in places:
            if (self.root / place).is_file():
                return self.root / place
        raise Unavailable(f"{places[0]} is not in Debian's packages of today")

    def libraries(self, program: Path) -> list[tuple[str, str]]:
        """Return the name and the place of each shared library of a program; its loader is named `loader`."""
        told = _run(*self._with_libraries(), "ldd", str(program)).stdout
        found = re.findall(r"^\s*(\S+) => (/\S+)", told, re.MULTILINE)
        return [*found, *(("loader", loader) for loader in re.findall(r"^\s*(/\S*ld-linux\S*) \(", told, re.MULTILINE))]

    def program(self, name: str) -> tuple[str, ...]:
        """Return the command that runs one of PROGRAMS."""
        if found := shutil.which(name, path=PATH):
            return (found,)
        unpacked = self.file(f"usr/bin/{name}", f"usr/sbin/{name}", f"sbin/{name}")
        return (*self._with_libraries(), f"QEMU_MODULE_DIR={self.root / LIBRARIES[0] / 'qemu'}", str(unpacked))

    def _with_libraries(self) -> tuple[str, str]:
        return "env", f"LD_LIBRARY_PATH={':'.join(str(self.root / folder) for folder in LIBRARIES)}"


def debian() -> Debian:
    """Return the unpacked packages; they are downloaded where the cache has none. Raises Unavailable."""
    if os.uname().machine != "x86_64":
        raise Unavailable(f"real Linux guests: an x86-64 machine, which {os.uname().machine} is not")
    if missing := [name for name in ("apt-get", "apt-cache", "dpkg-deb") if shutil.which(name) is None]:
        raise Unavailable(
            f"real Linux guests: {missing[0]}, which gets what they are made of; in a Debian: docker run --rm "
            f"-v {ROOT}:/forktui debian:12 sh -c 'apt-get update && apt-get install -y git python3-venv && "
            "git clone /forktui /tested && cd /tested && .ci/run'"
        )
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        unpacked = CACHE / "debian"
        wanted = sorted((*GUESTS, KERNEL_OF, *_packages_of_missing_programs()))
        if not unpacked.exists() or not set(wanted) <= set(json.loads((unpacked / "wanted.json").read_text())):
            _fill(unpacked, wanted)
        return Debian(unpacked)


def _packages_of_missing_programs() -> Iterator[str]:
    for name, package in PROGRAMS.items():
        if shutil.which(name, path=PATH) is None:
            yield package


def _fill(unpacked: Path, wanted: list[str]) -> None:
    """Unpack packages, and what they depend on that is not installed; then put them in place."""
    apt = CACHE / "apt"
    archives = apt / "archives"
    for folder in (apt / "lists", archives):
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    own = {"Dir::State::lists": apt / "lists", "Dir::Cache": apt, "APT::Sandbox::User": "root", "Debug::NoLocking": "1"}
    options = tuple(word for name, value in own.items() for word in ("-o", f"{name}={value}"))
    # It exits with 0 where it could fetch some lists only, which may be enough.
    warned = _run("apt-get", *options, "update", "-qq").stderr
    try:
        _download(archives, options, wanted)
    except Unavailable as error:
        raise Unavailable(f"real Linux guests: {_last_line(warned)}; see: {TO_SEE_WHY}") if warned else error from error
    complete = unpacked.with_name("debian.new")
    shutil.rmtree(complete, ignore_errors=True)
    for package in sorted(archives.glob("*.deb")):
        _run("dpkg-deb", "-x", str(package), str(complete))
    (complete / "wanted.json").write_text(json.dumps(wanted))
    shutil.rmtree(unpacked, ignore_errors=True)
    complete.rename(unpacked)
    shutil.rmtree(apt)


def _download(archives: Path, options: tuple[str, ...], wanted: list[str]) -> None:
    depends = _run("apt-cache", *options, "depends", "--important", KERNEL_OF).stdout.split()
    kernel = next((word for word in depends if word.startswith("linux-image-") and word != KERNEL_OF), None)
    if kernel is None:
        raise Unavailable(f"real Linux guests: {KERNEL_OF}, which this distribution does not have; a Debian has")
    install = ("install", "-y", "-qq", "--download-only", "--reinstall", "--no-install-recommends")
    _run("apt-get", *options, *install, *(name for name in wanted if name != KERNEL_OF))
    # What it depends on is there to install it.
    _run("apt-get", *options, "download", "-qq", kernel, directory=archives)


def _run(*command: str, directory: Path = ROOT) -> subprocess.CompletedProcess[str]:
    """Run a command to its end. Raises Unavailable where it fails."""
    try:
        done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=PACKAGES_TIMEOUT)
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"real Linux guests: packages, in {error.timeout:.0f} s; see: {TO_SEE_WHY}") from error
    if done.returncode != 0:
        told = _last_line(done.stderr) or f"exit code {done.returncode}"
        raise Unavailable(f"real Linux guests: {command[0]} says {told!r}; see: {TO_SEE_WHY}")
    return done


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


if __name__ == "__main__":
    print(debian().root)
