"""A program with the identity of a jailed VMM, which does in its jail what a VMM does that its guest has taken over."""

import subprocess
import sys
from pathlib import Path

# It becomes that user by itself: Python may be where that may not read.
_BECOME = "import mmap, os, sys; os.setgroups([]); os.setgid({gid}); os.setuid({uid})\n"
_GO_ON = "\nprint('done', flush=True); sys.stdin.read()"


class Hostile:
    """It has done what it was told when it is made, and holds what it has opened until it is closed."""

    def __init__(self, root: Path, uid: int, gid: int, program: str) -> None:
        self._process = subprocess.Popen(
            (sys.executable, "-I", "-S", "-c", f"{_BECOME.format(gid=gid, uid=uid)}{program}{_GO_ON}"),
            cwd=root,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        if self._process.stdout.readline() != b"done\n":
            self.close()
            raise AssertionError(self._process.stderr.read().decode())

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
