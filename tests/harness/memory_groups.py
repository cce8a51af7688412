"""Real cgroups with a limit of memory, in either version, for tests that may make them."""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

HOG = """
import sys
held = []
for line in sys.stdin:
    # Written to, so that each page is there.
    held.append(bytearray(b"x" * int(line)))
    print("held", flush=True)
"""


class MemoryGroup:
    """One cgroup."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.version = 2 if (folder / "memory.max").exists() else 1
        self.limit_file = "memory.max" if self.version == 2 else "memory.limit_in_bytes"

    @property
    def path(self) -> str:
        """What the kernel calls it."""
        mount = next(one for one in self.folder.parents if one.is_mount())
        return f"/{self.folder.relative_to(mount)}"

    def limit(self, size_bytes: int) -> None:
        """Limit the memory of all that is in it, swap included."""
        (self.folder / self.limit_file).write_text(str(size_bytes))

    def take(self, *pids: int) -> None:
        """Move processes into it."""
        for pid in pids:
            (self.folder / "cgroup.procs").write_text(str(pid))

    @property
    def pids(self) -> list[int]:
        """The processes in it."""
        return [int(line) for line in (self.folder / "cgroup.procs").read_text().split()]

    @property
    def used(self) -> int:
        """How many bytes it has, the page cache included."""
        return int((self.folder / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")).read_text())

    @property
    def kills(self) -> int:
        """How many processes the kernel has ended in it for want of memory."""
        text = (self.folder / ("memory.events" if self.version == 2 else "memory.oom_control")).read_text()
        return int(dict(line.split() for line in text.splitlines())["oom_kill"])

    def launcher(self) -> tuple[str, ...]:
        """Return what begins the command line of a program that is to start in it."""
        return "sh", "-c", f'echo $$ > {self.folder}/cgroup.procs; exec "$@"', "sh"

    def squeeze(self, step_bytes: int = 1 << 20) -> None:
        """Take memory in it until the kernel has ended one of its processes; who takes it has oom_score_adj 0."""
        command = [*self.launcher(), sys.executable, "-c", HOG]
        before = self.kills
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as hog:
            assert hog.stdin is not None
            assert hog.stdout is not None
            with contextlib.suppress(BrokenPipeError):
                while self.kills == before:
                    print(step_bytes, file=hog.stdin, flush=True)
                    # What a process had that came from another group stays that group's (of the first version): where
                    # its end frees too little here, who takes the memory is ended as well.
                    if hog.stdout.readline() != "held\n":
                        break
            hog.kill()
        assert self.kills > before


@contextlib.contextmanager
def memory_group(above: Path | None = None) -> Iterator[MemoryGroup]:
    """Yield a new cgroup, empty; what is in it at the end goes back to where it was made. Skips where none can be."""
    parent = above or _parent()
    folder = parent / f"forktui-test-{secrets.token_hex(4)}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"a cgroup of memory: {error.strerror}")
    try:
        group = MemoryGroup(folder)
        if not (folder / group.limit_file).exists():
            pytest.skip("a cgroup of memory: the controller is not to be had")
        yield group
    finally:
        for pid in (folder / "cgroup.procs").read_text().split():
            with contextlib.suppress(OSError):
                (parent / "cgroup.procs").write_text(pid)
        folder.rmdir()


def _parent() -> Path:
    """Return where cgroups of memory can be made: of the first version in ours, of the second at its root."""
    if os.geteuid():
        pytest.skip("a cgroup of memory: not root")
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        root, mount = before.split()[3:5]
        if kind == "cgroup" and "memory" in options.split(","):
            path = next(path for _, controllers, path in own if "memory" in controllers.split(","))
            return Path(mount) / path.removeprefix(root).lstrip("/")
        if kind == "cgroup2" and "memory" in Path(mount, "cgroup.controllers").read_text().split():
            with contextlib.suppress(OSError):
                Path(mount, "cgroup.subtree_control").write_text("+memory")
            return Path(mount)
    pytest.skip("a cgroup of memory: none is mounted")
