"""Textual's driver of a terminal, and what it leaves undone: questions, a stop that nothing announces, bad UTF-8."""

import os
import selectors
import signal
from codecs import getincrementaldecoder
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TextIO

from textual._xterm_parser import XTermParser
from textual.drivers.linux_driver import LinuxDriver

from forktui.tui.background import Answers
from forktui.tui.messages import BackgroundTold
from supervisor.system.processes import stat_fields

if TYPE_CHECKING:
    from textual.app import App

LOOK_AGAIN = 0.1
"""Seconds of silence after which Escape was the Escape key, and between two looks at whether to end."""
_READ_BYTES = 4096
STOPPED = "forktui is stopped; the supervisor and its VMs go on. `fg` brings it back"


class _Screen:
    """What is drawn on; once the terminal is gone nothing is, and nobody waits for a thread that has failed at it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            self._stream.flush()

    def fileno(self) -> int:
        return self._stream.fileno()


class TerminalDriver(LinuxDriver):
    """Draws on a terminal and reads from it, and gives it back as it was."""

    def __init__(self, app: "App[Any]", **options: Any) -> None:
        super().__init__(app, **options)
        self._file = _Screen(self._file)  # type: ignore[assignment, arg-type]
        self._answers = Answers()
        self._given_back = True
        # Not in the middle of whatever runs: what is written waits for a lock, which that may have.
        self._loop.add_signal_handler(signal.SIGTSTP, self._sigtstp_application)
        self._loop.add_signal_handler(signal.SIGCONT, self._sigcont_application)

    def ask_background(self) -> None:
        """Ask whether the background is light; the answer comes as a message, if at all, and nothing waits for it."""
        self.write(self._answers.ask())
        self.flush()

    def write(self, data: str) -> None:
        # Nobody reads what is written while the shell has the terminal, and the queue of it has an end.
        if not self._given_back:
            super().write(data)

    def start_application_mode(self) -> None:
        self._given_back = False
        super().start_application_mode()  # type: ignore[no-untyped-call]
        # It returns at once, and the process stops, where the shell has another job in the foreground.
        self._given_back = self._writer_thread is None or not self._writer_thread.is_alive()

    def stop_application_mode(self) -> None:
        super().stop_application_mode()
        self.write("\x1b[?1016l\x1b]22;default\x07")
        self.flush()

    def stop_job(self) -> None:
        """Stop this process and those of its job, as Ctrl-Z does, until the shell has them go on."""
        # Before the others are stopped, of which one may be what the shell waits for: it takes the terminal then.
        self.suspend_application_mode()
        os.kill(0, signal.SIGTSTP)

    def lend(self) -> None:
        """Give the terminal to another program of this job, until `resume_application_mode`."""
        super().suspend_application_mode()
        self._given_back = True

    def suspend_application_mode(self) -> None:
        if self._given_back:
            return
        self.lend()
        # Not by a stream: this may be a signal's handler, in the middle of another write to it.
        os.write(2, f"{STOPPED}\n".encode())

    def resume_application_mode(self) -> None:
        # SIGSTOP cannot be heard of: the shell has had the terminal as it was then.
        if not self._given_back:
            super().suspend_application_mode()
        super().resume_application_mode()

    def run_input_thread(self) -> None:
        """Read until the exit event; a terminal that is gone ends it too, which the application hears of elsewhere."""
        # What is no UTF-8, as from another locale's terminal, is no reason to end.
        decoder = getincrementaldecoder("utf-8")("replace")
        parser = XTermParser(self._debug)
        with selectors.DefaultSelector() as selector:
            selector.register(self.fileno, selectors.EVENT_READ)
            while not self.exit_event.is_set():
                if selector.select(LOOK_AGAIN):
                    try:
                        sent = os.read(self.fileno, _READ_BYTES)
                    except OSError:
                        return
                    if not sent:
                        return
                    text = self._taken(decoder.decode(sent))
                else:
                    text = self._answers.release()
                # Nothing at all would be the end to it.
                for message in parser.feed(text) if text else ():
                    self.process_message(message)
                for message in parser.tick():
                    self.process_message(message)

    def _taken(self, sent: str) -> str:
        before = self._answers.light
        text = self._answers.take(sent)
        if self._answers.light not in (None, before):
            self.send_message(BackgroundTold(bool(self._answers.light)))
        return text


def shell_waits() -> bool:
    """Whether a shell with jobs has started this: else nobody would have it go on after a stop."""
    group, process = os.getpgrp(), os.getppid()
    try:
        # What is between, such as sudo, is of the same job; the shell that waits for the job is not.
        while process > 1 and os.getpgid(process) == group:
            process = int(stat_fields(process)[1])
        return os.getsid(process) == os.getsid(0)
    except (OSError, ValueError):
        return False
