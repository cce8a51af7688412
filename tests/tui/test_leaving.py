"""How the dashboard leaves a terminal, for good or for a while: by Ctrl-C, Ctrl-Z, stops, and faults of its own."""

import os
import select
import signal
import stat
import sys
import termios
from pathlib import Path

import pytest

from tests.harness.checkout import ROOT
from tests.harness.own_terminal import PATIENCE, assert_left, dashboard_of_nobody, on_a_terminal

READS = "\x1b[?2004h"
"""Bracketed paste, which the driver switches on when it has begun to read keys."""
FAILING = """
import sys
from pathlib import Path
from forktui.tui import terminal
from forktui.tui.widgets.status_line import StatusLine
from forktui.tui.app import ForkTui

async def fail_in_a_worker(self):
    raise RuntimeError("in a worker\\x1b]0;OWNED\\x07")

def fail_in_a_render(self, width, height):
    return 1 / 0

async def fail_in_a_handler(self, message):
    raise RuntimeError("in a handler")

def fail_at_the_start(self):
    raise OSError(5, "Input/output error")

{patch}
sys.exit(terminal.run(Path("/nonexistent/none.sock")))
"""


@pytest.mark.parametrize(
    ("patch", "told"),
    [
        ("ForkTui._live = fail_in_a_worker", "RuntimeError: in a worker\\x1b]0;OWNED\\x07"),
        ("StatusLine.paint = fail_in_a_render", "ZeroDivisionError: division by zero"),
        ("ForkTui.on_link_changed = fail_in_a_handler", "RuntimeError: in a handler"),
        ("ForkTui.compose = fail_at_the_start", "OSError: [Errno 5] Input/output error"),
    ],
)
def test_a_fault_of_its_own_is_one_line_and_a_file_and_the_terminal_is_as_it_was(
    patch: str, told: str, tmp_path: Path
) -> None:
    program = FAILING.format(patch=patch)
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    with on_a_terminal(sys.executable, "-c", program, environment=environment) as (terminal, pid):
        before = termios.tcgetattr(terminal.descriptor)
        terminal.drain()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        after = termios.tcgetattr(terminal.descriptor)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 1)
    assert after == before
    assert_left(terminal)
    details = tmp_path / "forktui" / "fault.txt"
    assert f"forktui: the dashboard has failed: {told}; the VMs go on, and the details are in {details}" in "".join(
        terminal.written.decode().splitlines()[-1:]
    )
    assert "Traceback" not in terminal.written.decode()
    assert "Traceback (most recent call last)" in details.read_text()
    assert "\x1b" not in details.read_text()
    assert stat.S_IMODE(details.stat().st_mode) == 0o600


def waited_for(pid: int) -> os.waitid_result:
    """Return how a process has ended, which nobody else waits for."""
    descriptor = os.pidfd_open(pid)
    try:
        assert select.select([descriptor], [], [], PATIENCE)[0], f"process {pid} has not ended"
    finally:
        os.close(descriptor)
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    return ended


def test_where_the_details_cannot_be_kept_they_are_printed(run_dir: Path) -> None:
    program = FAILING.format(patch="StatusLine.paint = fail_in_a_render")
    environment = {"XDG_STATE_HOME": "/proc/none"}
    with on_a_terminal(sys.executable, "-c", program, environment=environment) as (terminal, _):
        terminal.drain()
    assert b"the details cannot be kept: " in terminal.written
    assert b"in fail_in_a_render" in terminal.written


def test_it_goes_on_after_a_stop_that_nothing_announces(run_dir: Path) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir)) as (terminal, pid):
        before = termios.tcgetattr(terminal.descriptor)
        terminal.until("no supervisor listens there")
        for _ in range(2):
            os.kill(pid, signal.SIGSTOP)
            terminal.read_until_stopped(pid)
            # As a shell does that takes the terminal.
            termios.tcsetattr(terminal.descriptor, termios.TCSANOW, before)
            drawn = len(terminal.written)
            os.kill(pid, signal.SIGCONT)
            # A tick may write the words before the terminal is read again, and a key before that would be lost.
            terminal.until_written_since(drawn, READS)
            terminal.until_written_since(drawn, "no supervisor listens there")
        terminal.press("?")
        terminal.until("Virtual machines")
        terminal.press("q")
        terminal.until("Nothing is known of the host")
        terminal.press("q")
        terminal.drain()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        after = termios.tcgetattr(terminal.descriptor)
    assert ended is not None and ended.si_status == 0
    assert after == before
    assert_left(terminal)


@pytest.mark.parametrize("below", ["", "?", "?/"])
def test_ctrl_z_gives_the_terminal_to_the_shell_and_fg_draws_anew(below: str, run_dir: Path) -> None:
    script = run_dir / "dashboard.py"
    script.write_text(dashboard_of_nobody(run_dir)[2])
    inputrc = run_dir / "inputrc"
    inputrc.write_text("set enable-bracketed-paste off\n")
    shell = ("/bin/bash", "--norc", "--noprofile", "-i")
    environment = {"PS1": "$ ", "PYTHONPATH": str(ROOT), "INPUTRC": str(inputrc)}
    with on_a_terminal(*shell, environment=environment) as (terminal, _):
        terminal.until("$ ")
        terminal.press(f"cd {run_dir}; stty -g > before\r")
        # In a job of two: what waits for the dashboard is stopped with it.
        terminal.press(f"sh -c '{sys.executable} dashboard.py; true'\r")
        terminal.until("no supervisor listens there")
        terminal.press(below)
        terminal.until("Virtual machines" if below else "no supervisor listens there")
        terminal.press("\x1a")
        terminal.until("[1]+  Stopped")
        assert "forktui is stopped; the supervisor and its VMs go on. `fg` brings it back" in terminal.display
        assert_left(terminal)
        terminal.press("stty -g > after; echo the shell $((6 * 7))\r")
        terminal.until("the shell 42")
        assert (run_dir / "after").read_text() == (run_dir / "before").read_text()
        drawn = len(terminal.written)
        terminal.press("fg\r")
        # What is typed before the dashboard has its terminal again is discarded with the shell's settings.
        terminal.until_written_since(drawn, "Virtual machines" if below else "no supervisor listens there")
        if below:
            terminal.press("\rq")
            terminal.until("Nothing is known of the host")
        drawn = len(terminal.written)
        terminal.press("q")
        terminal.until_written_since(drawn, "$ ")
        assert_left(terminal)
        terminal.press("exit\r")
        terminal.drain()


def test_ctrl_z_where_no_shell_would_bring_it_back_says_so(run_dir: Path) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir)) as (terminal, _):
        terminal.until("no supervisor listens there")
        terminal.press("\x1a")
        terminal.until("no shell with jobs has started forktui")
        terminal.press("\x03")
        terminal.until("Ctrl-C again leaves forktui")
        terminal.press("\x03")
        terminal.drain()
    assert_left(terminal)


def test_a_signal_in_the_middle_of_the_start_leaves_the_terminal_as_it_was(run_dir: Path) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir)) as (terminal, pid):
        before = termios.tcgetattr(terminal.descriptor)
        terminal.until_written("\x1b[?1049h")
        os.kill(pid, signal.SIGTERM)
        terminal.drain()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        after = termios.tcgetattr(terminal.descriptor)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 1)
    assert after == before
    assert_left(terminal)


def test_what_is_typed_and_is_no_utf8_ends_nothing(run_dir: Path) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir)) as (terminal, _):
        terminal.until("no supervisor listens there")
        os.write(terminal.descriptor, b"\xff\xfe?")
        terminal.until("Virtual machines")
        terminal.press("q")
        terminal.until("Nothing is known of the host")
        terminal.press("q")
        terminal.drain()
    assert b"Traceback" not in terminal.written


def test_a_terminal_that_is_gone_in_the_middle_of_drawing_ends_it(run_dir: Path) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir)) as (terminal, pid):
        terminal.until("no supervisor listens there")
        # Each help is a screen to be drawn, which nobody reads any more.
        terminal.press("?q" * 100)
        terminal.hang_up()
        ended = waited_for(pid)
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 1)
