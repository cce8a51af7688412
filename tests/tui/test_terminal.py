"""The dashboard on a terminal of its own: what reaches it byte by byte, and where it does not start at all."""

import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pyte
import pytest

from forktui.tui.terminal import MIN_COLUMNS, MIN_LINES, USAGE, prepare, run, terminal_refusal
from forktui.tui.variables import wrong_variable
from tests.harness.checkout import ROOT

PATIENCE = 30.0
COLUMNS, LINES = 120, 40
GOOD = os.terminal_size((80, 24))

# Told to a dashboard in a process of its own: escape sequences in C0 and C1, markup, bidi controls.
HOSTILE = "\x1b]0;OWNED\x07\x1b[2J\x9b31m\x9d0;OWNED\x9c\u202e\x08[red]evil[/]"
SCRIPT = f"""
import sys
from forktui.tui.app import ForkTui
from supervisor.models import Activity, Guest, InstanceStatistics, Operation
from tests.harness.told_hosts import BEGIN, instance, reset
from tests.harness.recorded_supervisor import RecordedSupervisor

hostile = {HOSTILE!r}
vm = instance("vm", state_error=hostile, exit_message=hostile, exit_code=1, image=hostile)
asked = Operation(verb=hostile, asked_by=hostile)
named = instance("other", age=1).model_copy(update={{"name": hostile, "operation": asked}})
events = [
    reset([vm, named], [InstanceStatistics(id="vm", guest=Guest(corrupt=hostile))]),
    Activity(at=BEGIN, level="alarm", message=hostile),
    Activity(at=BEGIN, level="info", message="the last event"),
]
ForkTui(RecordedSupervisor(events), title=hostile, now=lambda: 0.0).run()
"""


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

    def press(self, keys: str) -> None:
        """Type."""
        os.write(self.descriptor, keys.encode())

    def drain(self) -> None:
        """Read until the process at the other end is gone."""
        while self._take():
            pass

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
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FORKTUI", "TEXTUAL"))}
        terminal = {"TERM": "xterm-256color", "COLORTERM": "truecolor", "FORKTUI_ASCII": "0", "PYTHONPATH": str(ROOT)}
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


def test_hostile_text_never_reaches_the_terminal_as_control_bytes() -> None:
    with on_a_terminal(sys.executable, "-c", SCRIPT) as (terminal, _):
        terminal.until("the last event")
        terminal.press("jr")
        terminal.until("is under way")
        terminal.press("kd")
        shown = terminal.until("Delete vm?")
        terminal.press("nq")
        terminal.drain()
    assert shown.count("]0;OWNED") >= 4, "the text itself is shown, in header, tree, details and events"
    assert "[red]evil[/]" in shown
    assert "OWNED" not in terminal.screen.title
    # The mouse pointer's shape is the only OSC of Textual's own.
    written = re.sub(r"\x1b\]22;[a-z]*\x07", "", terminal.written.decode("utf-8"))
    assert re.findall(r"[\x07\x08\x7f-\x9f\u202a-\u202e\u2066-\u2069]", written) == []
    assert "\x1b]" not in written
    assert "\x1b[2J" not in written


def test_it_runs_and_leaves_the_terminal_as_it_was(run_dir: Path) -> None:
    socket = str(run_dir / "none.sock")
    program = (
        f"import sys; from pathlib import Path; from forktui.tui.terminal import run; sys.exit(run(Path({socket!r})))"
    )
    with on_a_terminal(sys.executable, "-c", program) as (terminal, pid):
        terminal.until("no supervisor listens there")
        terminal.press("q")
        terminal.drain()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)
    assert_left(terminal)


def assert_left(terminal: Terminal) -> None:
    """Every mode that was switched on is off again."""
    for mode in ("1049", "1000", "1006", "2004"):
        modes = re.findall(rf"\x1b\[\?{mode}([hl])".encode(), terminal.written)
        assert modes[-1:] == [b"l"], f"mode {mode} is left on"


@pytest.mark.parametrize(
    ("environment", "is_tty", "size", "words"),
    [
        ({"TERM": "xterm"}, False, GOOD, "must be a terminal"),
        ({"TERM": "dumb"}, True, GOOD, "TERM=dumb"),
        ({}, True, GOOD, "TERM="),
        ({"TERM": "xterm"}, True, os.terminal_size((MIN_COLUMNS - 1, 24)), f"59x24 and {MIN_COLUMNS}x{MIN_LINES}"),
        ({"TERM": "xterm"}, True, os.terminal_size((80, MIN_LINES - 1)), "enlarge it"),
    ],
)
def test_a_terminal_that_cannot_show_it_is_refused_in_one_line(
    environment: dict[str, str], is_tty: bool, size: os.terminal_size, words: str
) -> None:
    refusal = terminal_refusal(environment, is_tty, size)
    assert refusal is not None
    assert words in refusal
    assert "forktui demo --headless" in refusal
    assert "\n" not in refusal


def test_the_smallest_terminal_is_accepted() -> None:
    assert terminal_refusal({"TERM": "xterm"}, True, os.terminal_size((MIN_COLUMNS, MIN_LINES))) is None


def test_without_a_terminal_run_says_so_and_returns_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(tmp_path / "none.sock") == USAGE
    error = capsys.readouterr().err
    assert error.startswith("forktui: ")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("TEXTUAL_FPS", "abc", "a whole number from 1 to 1000"),
        ("TEXTUAL_FPS", "0", "a whole number from 1 to 1000"),
        ("TEXTUAL_FPS", "", "a whole number from 1 to 1000"),
        ("TEXTUAL_SCREENSHOT", "-2", "a whole number from -1 on"),
        ("TEXTUAL_DEVTOOLS_PORT", "65536", "a whole number from 0 to 65535"),
        ("TEXTUAL_SMOOTH_SCROLL", "yes", "a whole number from 0 to 1"),
        ("ESCDELAY", "9" * 5000, "a whole number from 1 to 60000"),
        ("TEXTUAL_ANIMATIONS", "some", "none, basic or full"),
        ("TEXTUAL_COLOR_SYSTEM", "mauve", "auto, standard, 256 or truecolor"),
        ("TEXTUAL_FILTERS", "\x1b[2J", "dim"),
    ],
)
def test_a_variable_that_textual_would_drop_or_fail_at_is_refused(name: str, value: str, allowed: str) -> None:
    refusal = wrong_variable({name: value})
    assert refusal is not None
    assert refusal.startswith(f"{name}: '")
    assert refusal.endswith(f"' is refused: it takes {allowed}; set another, or unset it")
    assert refusal.isprintable() and len(refusal) < 300


def test_what_textual_takes_is_taken() -> None:
    assert wrong_variable({}) is None
    taken = {"TEXTUAL_FPS": "30", "TEXTUAL_ANIMATIONS": "none", "TEXTUAL_COLOR_SYSTEM": "256", "ESCDELAY": "50"}
    assert wrong_variable(taken) is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TEXTUAL_DRIVER", "x"),
        ("TEXTUAL_DRIVER", ""),
        ("TEXTUAL_DRIVER", "no.such:Driver"),
        ("TEXTUAL_DRIVER", "os:getcwd"),
        ("TEXTUAL_THEME", "nice"),
        ("TEXTUAL_LOG", "/no/such/file"),
        ("TEXTUAL_FPS", "abc"),
    ],
)
def test_on_a_terminal_a_wrong_variable_is_one_line_and_nothing_is_started(
    name: str, value: str, run_dir: Path
) -> None:
    places = {"FORKTUI_DATA_DIR": f"{run_dir}/data", "FORKTUI_RUN_DIR": f"{run_dir}/run"}
    command = (sys.executable, "-m", "forktui")
    with on_a_terminal(*command, environment={name: value, **places}) as (terminal, pid):
        terminal.drain()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_status == USAGE
    assert terminal.written.startswith(f"forktui: {name}: '{value}' is refused: it takes ".encode())
    assert terminal.written.count(b"\n") == 1
    assert list(run_dir.iterdir()) == []


def test_a_log_of_textuals_that_nobody_reads_is_refused_and_not_waited_for(run_dir: Path) -> None:
    fifo = run_dir / "log"
    os.mkfifo(fifo)
    with on_a_terminal(sys.executable, "-m", "forktui", environment={"TEXTUAL_LOG": str(fifo)}) as (terminal, pid):
        terminal.drain()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert ended.si_status == USAGE
    assert b"TEXTUAL_LOG: " in terminal.written


def dashboard_of_nobody(run_dir: Path) -> tuple[str, ...]:
    """The command of a dashboard on a socket that nobody listens at."""
    socket = str(run_dir / "none.sock")
    program = (
        "import sys; from pathlib import Path; from forktui.tui.terminal import run; "
        "from supervisor.programs import run_program; "
        f"sys.exit(run_program('forktui', lambda: run(Path({socket!r}))))"
    )
    return (sys.executable, "-c", program)


def test_the_terminal_knows_its_size_better_than_the_environment(run_dir: Path) -> None:
    wrong = {"COLUMNS": "61", "LINES": "17"}
    with on_a_terminal(*dashboard_of_nobody(run_dir), environment=wrong) as (terminal, _):
        shown = terminal.until("no supervisor listens there")
        assert any(len(line.rstrip()) > 61 for line in shown.splitlines())
        shown = terminal.until("events")
        assert any(line.strip() for line in shown.splitlines()[17:])
        terminal.press("q")
        terminal.drain()
    with on_a_terminal(*dashboard_of_nobody(run_dir), environment={"COLUMNS": "1", "LINES": "1"}) as (terminal, _):
        terminal.until("no supervisor listens there")
        terminal.press("q")
        terminal.drain()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_ends_it_with_the_terminal_as_it_was(number: signal.Signals, run_dir: Path) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir)) as (terminal, pid):
        before = termios.tcgetattr(terminal.descriptor)
        terminal.until("no supervisor listens there")
        assert termios.tcgetattr(terminal.descriptor) != before
        os.kill(pid, number)
        terminal.drain()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 1)
    assert_left(terminal)


def test_it_is_stopped_and_goes_on_with_the_terminal_as_it_was_meanwhile(run_dir: Path) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir)) as (terminal, pid):
        before = termios.tcgetattr(terminal.descriptor)
        terminal.until("no supervisor listens there")
        os.kill(pid, signal.SIGTSTP)
        terminal.read_until_stopped(pid)
        assert termios.tcgetattr(terminal.descriptor) == before
        assert_left(terminal)
        os.kill(pid, signal.SIGCONT)
        terminal.until("no supervisor listens there")
        terminal.press("q")
        terminal.drain()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)
    assert_left(terminal)


@pytest.mark.parametrize("size", [(1, 1), (2, 200), (200, 2)])
def test_a_terminal_that_shrinks_to_nothing_and_grows_again_is_drawn_on(size: tuple[int, int], run_dir: Path) -> None:
    with on_a_terminal(*dashboard_of_nobody(run_dir)) as (terminal, pid):
        terminal.until("no supervisor listens there")
        for lines, columns in (size, (LINES, COLUMNS)):
            fcntl.ioctl(terminal.descriptor, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
            os.kill(pid, signal.SIGWINCH)
        terminal.press("q")
        terminal.drain()
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert ended is not None
    assert (ended.si_code, ended.si_status) == (os.CLD_EXITED, 0)
    assert b"Traceback" not in terminal.written


def test_over_ssh_there_are_fewer_frames_and_no_animation_and_here_more_unless_they_are_asked_for() -> None:
    environment = {"SSH_CONNECTION": "1 2 3 4"}
    prepare(environment)
    assert (environment["TEXTUAL_FPS"], environment["TEXTUAL_ANIMATIONS"]) == ("15", "none")
    asked = {"SSH_CONNECTION": "1 2 3 4", "TEXTUAL_FPS": "30"}
    prepare(asked)
    assert asked["TEXTUAL_FPS"] == "30"
    here: dict[str, str] = {}
    prepare(here)
    assert here == {"TEXTUAL_FPS": "120"}


def test_textual_reads_what_was_prepared() -> None:
    program = (
        "import os; from forktui.tui import terminal; terminal.prepare(os.environ); "
        "import sys; assert 'textual' not in sys.modules; "
        "from textual import constants; print(constants.MAX_FPS, constants.TEXTUAL_ANIMATIONS)"
    )
    environment = {**os.environ, "SSH_CONNECTION": "1 2 3 4"}
    for name in ("TEXTUAL_FPS", "TEXTUAL_ANIMATIONS"):
        environment.pop(name, None)
    found = subprocess.run(
        [sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.split() == ["15", "none"]
