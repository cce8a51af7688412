"""A small file system for a supervisor's data, which a test can fill, make read-only, and free again."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

TRIES = 20
BLOCK = 4096
"""tmpfs gives space by the page."""


@dataclass(frozen=True)
class SmallDisk:
    """A tmpfs; it is unmounted when the test ends."""

    path: Path

    def free(self) -> int:
        """Return how many bytes may still be written."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    @contextlib.contextmanager
    def filled(self, blocks: int = 0) -> Iterator[None]:
        """Leave so many free blocks while the context lasts."""
        ballast = self.path / ".ballast"
        fd = os.open(ballast, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            taken = 0
            while (more := self.free() - blocks * BLOCK) > 0:
                # Guests print meanwhile, and may have taken of what was free.
                with contextlib.suppress(OSError):
                    os.posix_fallocate(fd, taken, more)
                    taken += more
            yield
        finally:
            os.close(fd)
            ballast.unlink()

    @contextlib.contextmanager
    def crowded(self, names: int = 0) -> Iterator[None]:
        """Let so many more names be made while the context lasts; each is one too many for tmpfs as a full disk is."""
        status = os.statvfs(self.path)
        self._crowd(names)
        try:
            yield
        finally:
            remount(self.path, f"nr_inodes={status.f_files}")

    def _crowd(self, names: int) -> None:
        for _ in range(TRIES):
            status = os.statvfs(self.path)
            # It fails where somebody has made a name since the look, if only for a moment, as of a record.
            with contextlib.suppress(subprocess.CalledProcessError):
                remount(self.path, f"nr_inodes={status.f_files - status.f_ffree + names}")
                return
        raise AssertionError(f"{self.path}: names come and go faster than they can be counted")

    @contextlib.contextmanager
    def read_only(self) -> Iterator[None]:
        """Let nothing be written by its path while the context lasts; what is open, or a working directory, still is.

        A file system that is open for writing cannot be made read-only, so a read-only mount of it is put in its place.
        """
        run("mount", "--bind", str(self.path), str(self.path))
        try:
            remount(self.path, "bind,ro")
            yield
        finally:
            run("umount", "--lazy", str(self.path))


def remount(path: Path, options: str) -> None:
    """Change the options of a mount."""
    run("mount", "-o", f"remount,{options}", str(path))


def run(*command: str) -> None:
    """Run a program that must succeed."""
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def small_disk(path: Path, mebibytes: int) -> Iterator[SmallDisk]:
    """Mount one at a new directory; skip the test where that is not permitted."""
    path.mkdir(mode=0o700)
    options = f"size={mebibytes}m,mode=0700"
    mounted = subprocess.run(
        ("mount", "-t", "tmpfs", "-o", options, "forktui-test", str(path)), capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a tmpfs of its own: {mounted.stderr.strip() or 'mount failed'}")
    try:
        yield SmallDisk(path)
    finally:
        run("umount", "--lazy", str(path))
