"""A program on a pseudo-terminal of its own: all that it writes, byte by byte, and what of that is on the screen."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyte

from tests.harness.checkout import ROOT

PATIENCE = 30.0
COLUMNS, LINES = 120, 40
HOSTILE = "\x1b]0;OWNED\x07\x1b[2J\x9b31m\x9d0;OWNED\x9c\u202e\x08[red]evil[/]"
"""Escape sequences in C0 and C1, markup, and a bidi control."""


class Terminal:
    """The other end of a pseudo-terminal, with everything that was written to it."""

    def __init__(self, descriptor: int) -> None:
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.written = b""
        self.descriptor = descriptor
        self._stream = pyte.ByteStream(self.screen)

    def until(self, words: str) -> str:
        """Read until the screen has these words, and return all of it."""
        deadline = time.monotonic() + PATIENCE
        while words not in "\n".join(self.screen.display):
            left = deadline - time.monotonic()
            ready, _, _ = select.select([self.descriptor], [], [], max(left, 0))
            assert ready, f"{words!r} did not appear:\n" + "\n".join(self.screen.display)
            self._take()
        return "\n".join(self.screen.display)

    def until_gone(self, words: str) -> None:
        """Read until the screen has these words no more."""
        deadline = time.monotonic() + PATIENCE
        while words in self.display:
            ready, _, _ = select.select([self.descriptor], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{words!r} did not go:\n{self.display}"
            self._take()

    @property
    def display(self) -> str:
        """What is on the screen."""
        return "\n".join(self.screen.display)

    def until_written(self, sequence: str) -> None:
        """Read until these characters have been written."""
        self.until_written_since(0, sequence)

    def until_written_since(self, begin: int, sequence: str) -> None:
        """Read until these characters have been written behind the first `begin` bytes."""
        deadline = time.monotonic() + PATIENCE
        while sequence.encode() not in self.written[begin:]:
            ready, _, _ = select.select([self.descriptor], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"{sequence!r} was not written"
            self._take()

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.descriptor, keys.encode())

    def hang_up(self) -> None:
        """Take the terminal away from the process at the other end."""
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, self.descriptor)
        os.close(null)

    def drain(self) -> None:
        """Read until the process at the other end is gone."""
        while select.select([self.descriptor], [], [], PATIENCE)[0]:
            if not self._take():
                return
        raise AssertionError("it has not ended:\n" + "\n".join(self.screen.display))

    def read_until_stopped(self, pid: int) -> None:
        """Read until the process at the other end is stopped; it writes all that it has to write before."""
        deadline = time.monotonic() + PATIENCE
        while os.waitid(os.P_PID, pid, os.WSTOPPED | os.WNOHANG) is None:
            assert time.monotonic() < deadline, f"process {pid} is not stopped"
            if select.select([self.descriptor], [], [], 0.05)[0]:
                self._take()
        while select.select([self.descriptor], [], [], 0)[0]:
            self._take()

    def _take(self) -> bool:
        try:
            data = os.read(self.descriptor, 65_536)
        except OSError:  # EIO: the last process that had the other end open has ended (pty(7)).
            return False
        self.written += data
        # pyte does not know the private modes with intermediate characters (`ESC [ ? 2026 $ p`) and prints their ends.
        self._stream.feed(re.sub(rb"\x1b\[[?>=]?[0-9;]*\$?[pu]", b"", data))
        return bool(data)


@contextmanager
def on_a_terminal(*command: str, environment: Mapping[str, str] | None = None) -> Iterator[tuple[Terminal, int]]:
    """Run a command on a pseudo-terminal of its own; it is killed where it has not ended with the context."""
    pid, descriptor = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("FORKTUI", "TEXTUAL", "COLUMNS", "LINES"))
        }
        # Nobody's choices are read or written, nor is the terminal asked for its background.
        nowhere = {"XDG_STATE_HOME": "/nonexistent", "TEXTUAL_THEME": "forktui-dark"}
        terminal = {
            **nowhere,
            "TERM": "xterm-256color",
            "COLORTERM": "truecolor",
            "FORKTUI_ASCII": "0",
            "PYTHONPATH": str(ROOT),
        }
        try:
            os.execve(command[0], command, {**inherited, **terminal, **(environment or {})})
        finally:
            # Else a second session of pytest would go on from here.
            os._exit(127)
    try:
        yield Terminal(descriptor), pid
    finally:
        # Nothing happens where it has ended: its pid stays its own until it is waited for.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(descriptor)


def assert_left(terminal: Terminal) -> None:
    """Every mode that was switched on is off again."""
    for mode in ("1049", "1000", "1003", "1004", "1006", "1016", "2004"):
        modes = re.findall(rf"\x1b\[\?{mode}([hl])".encode(), terminal.written)
        assert modes[-1:] == [b"l"], f"mode {mode} is left on"
    for mode in ("25", "7"):
        modes = re.findall(rf"\x1b\[\?{mode}([hl])".encode(), terminal.written)
        assert modes[-1:] == [b"h"], f"mode {mode} is left off"
    assert terminal.written.count(b"\x1b[<u") == len(re.findall(rb"\x1b\[>\d+u", terminal.written))
    assert re.findall(rb"\x1b\]22;([a-z]*)\x07", terminal.written)[-1:] == [b"default"]
    assert re.findall(rb"\x1b\][012];", terminal.written) == [], "the title is the one that it was"


def dashboard_of_nobody(run_dir: Path) -> tuple[str, ...]:
    """The command of a dashboard on a socket that nobody listens at."""
    socket = str(run_dir / "none.sock")
    program = (
        "import sys; from pathlib import Path; from forktui.tui.terminal import run; "
        "from supervisor.programs import run_program; "
        f"sys.exit(run_program('forktui', lambda: run(Path({socket!r}))))"
    )
    return (sys.executable, "-c", program)


def assert_only_drawn(terminal: Terminal) -> None:
    """Nothing that was told has reached the terminal as a control character, or as a sequence that it obeys."""
    assert "OWNED" not in terminal.screen.title
    # The mouse pointer's shape is the only OSC of Textual's own.
    written = re.sub(r"\x1b\]22;[a-z]*\x07", "", terminal.written.decode("utf-8"))
    assert re.findall(r"[\x07-\x09\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]", written) == []
    assert "\x1b]" not in written
    assert "\x1b[2J" not in written
