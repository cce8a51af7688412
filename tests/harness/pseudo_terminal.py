"""A pseudo-terminal that a program draws on, and a test reads and types on."""

import contextlib
import fcntl
import os
import pty
import select
import struct
import termios
import threading
import time
from collections.abc import Iterator

import pyte

PATIENCE = 60.0
LINES, COLUMNS = 36, 120


class Terminal:
    """A pseudo-terminal and what was drawn on it."""

    def __init__(self) -> None:
        self.keyboard, self.device = pty.openpty()
        self.screen = pyte.Screen(COLUMNS, LINES)
        self.resize(LINES, COLUMNS)
        self._stream = pyte.ByteStream(self.screen)

    def resize(self, lines: int, columns: int) -> None:
        """Give the terminal a size, in characters."""
        fcntl.ioctl(self.device, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.screen.resize(lines, columns)

    def until(self, text: str) -> None:
        """Draw what comes until the screen has this text."""
        deadline = time.monotonic() + PATIENCE
        while text not in "\n".join(self.screen.display):
            left = deadline - time.monotonic()
            assert left > 0, "\n".join(self.screen.display)
            if select.select([self.keyboard], [], [], left)[0]:
                self._stream.feed(os.read(self.keyboard, 65536))

    def _drain(self) -> None:
        # A read from a terminal whose other end was closed by its last user is EIO, pty(7).
        with contextlib.suppress(OSError):
            while os.read(self.keyboard, 65536):
                pass

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self.keyboard, keys.encode())

    def hang_up(self) -> None:
        """Take the terminal away from the program that draws on it."""
        os.close(self.device)
        os.close(self.keyboard)

    def leave(self) -> threading.Thread:
        """Give up this process's hold on the device, so that the terminal ends with the program that draws on it.

        Returns a thread that reads what is still drawn, so that the program need not wait for it.
        """
        os.close(self.device)
        thread = threading.Thread(target=self._drain)
        thread.start()
        return thread


@contextlib.contextmanager
def pseudo_terminal() -> Iterator[Terminal]:
    """Open a terminal while the context lasts."""
    terminal = Terminal()
    yield terminal
    for descriptor in (terminal.keyboard, terminal.device):
        with contextlib.suppress(OSError):
            os.close(descriptor)
