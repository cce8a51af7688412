"""A shell on a guest's serial port that `forktui console` types into: past the supervisor's restart, and in a fork."""

import os
import pty
import select
import subprocess
import sys
import time
from typing import Final

from tests.linux.inside.host import PATIENCE, RUN, Host, Stopped

PROMPT: Final = "/ # "
SIZE: Final = (33, 101)
"""Lines and columns of the terminal."""


class Typist:
    """`forktui console` on a terminal of its own."""

    def __init__(self, name: str) -> None:
        self._terminal, device = pty.openpty()
        os.set_blocking(self._terminal, False)
        size = os.terminal_size((SIZE[1], SIZE[0]))
        subprocess.run(("stty", "rows", str(size.lines), "cols", str(size.columns)), stdin=device, check=True)
        words = (sys.executable, "-P", "-m", "forktui", "console", "--socket", str(RUN / "supervisor.sock"), name)
        self._program = subprocess.Popen(words, stdin=device, stdout=device, stderr=device, start_new_session=True)
        os.close(device)
        self.read = ""

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def until(self, words: str) -> None:
        """Read until the terminal was sent these words. Raises Stopped where they do not come."""
        deadline = time.monotonic() + PATIENCE
        while words not in self.read:
            if not select.select([self._terminal], [], [], max(deadline - time.monotonic(), 0))[0]:
                raise Stopped(f"{words!r} does not come: {self.read[-500:]!r}")
            self.read += os.read(self._terminal, 65536).decode(errors="replace")

    def leave(self) -> int:
        """Leave, and return the program's exit code."""
        self.type("\r~.")
        return self._program.wait(PATIENCE)


def run(host: Host) -> None:
    """Type into a guest and into its fork; end with nothing left."""
    host.create("shell", "plain", cmd=("do=shell",))
    host.until_says("shell", PROMPT)
    typist = Typist("shell")
    typist.until("typed into")
    # A line's end alone would be another prompt: what is asked for is said by the answer only.
    typist.type("echo answer-$((6 * 7))\r")
    typist.until("answer-42")
    # Once it runs: while the shell edits a line, Ctrl-C is a key like others.
    typist.type("echo begun-$((4 * 4)); sleep 1000\r")
    typist.until("begun-16")
    typist.type("\x03")
    typist.type("\recho woken-$((1 + 1))\r")
    typist.until("woken-2")
    typist.type("~sstty size\r")
    typist.until(f"{SIZE[0]} {SIZE[1]}")
    host.kill_supervisor()
    typist.until("connected again")
    typist.type("echo after-$((2 * 4))\r")
    typist.until("after-8")
    host.see("exit code", typist.leave())
    host.see("read", typist.read)
    host.verb("shell", "standby")
    host.fork("shell", "fork")
    typist = Typist("fork")
    typist.until("typed into")
    typist.type("echo fork-$((3 * 3))\r")
    typist.until("fork-9")
    host.see("exit code of the fork's", typist.leave())
