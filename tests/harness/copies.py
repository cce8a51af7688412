"""Copies of a directory as operators make them for a backup, by the programs that every Debian has."""

import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Final

Copy = Callable[[Path, Path], object]


def by_tar(*options: str) -> Copy:
    """Return a copy by way of an archive of tar's, which is unpacked again."""

    def copy(source: Path, target: Path) -> None:
        archive = target.with_name(f"{target.name}.tar")
        run("tar", *options, "-cf", str(archive), "-C", str(source), ".")
        target.mkdir()
        run("tar", "-xf", str(archive), "-C", str(target))
        archive.unlink()

    return copy


def by_tarfile(source: Path, target: Path) -> None:
    """Copy by way of Python's archive, which has times as doubles."""
    archive = target.with_name(f"{target.name}.tar")
    with tarfile.open(archive, "w") as packed:
        packed.add(source, ".")
    with tarfile.open(archive) as packed:
        packed.extractall(target, filter="fully_trusted")
    archive.unlink()


def by(*command: str) -> Copy:
    """Return a copy by a program that takes both names last."""
    return lambda source, target: run(*command, f"{source}/.", str(target))


def run(*command: str) -> None:
    """Run a program to its end."""
    subprocess.run(command, check=True)


KEEPS_TIMES: Final[dict[str, Copy]] = {
    "tar": by_tar("--format=gnu"),
    "tar pax": by_tar("--format=pax"),
    "tar sparse": by_tar("--format=gnu", "-S"),
    "tar sparse raw": by_tar("--format=pax", "-S", "--hole-detection=raw"),
    "cp": by("cp", "-a"),
    "cp sparse always": by("cp", "-a", "--sparse=always"),
    "cp sparse never": by("cp", "-a", "--sparse=never"),
    "tarfile": by_tarfile,
    "copytree": lambda source, target: shutil.copytree(source, target, symlinks=True),
}
