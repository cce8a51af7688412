"""The dashboard on a terminal of its own: what reaches it byte by byte, and where it does not start at all."""

import fcntl
import os
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from forktui.tui.terminal import MIN_COLUMNS, MIN_LINES, USAGE, prepare, run, terminal_refusal
from forktui.tui.variables import wrong_variable
from tests.harness.checkout import ROOT
from tests.harness.own_terminal import (
    COLUMNS,
    HOSTILE,
    LINES,
    assert_left,
    assert_only_drawn,
    dashboard_of_nobody,
    on_a_terminal,
)

GOOD = os.terminal_size((80, 24))

# Told to a dashboard in a process of its own.
SCRIPT = f"""
import sys
from forktui.tui.app import ForkTui
from supervisor.models import Activity, ErrorBody, FanOutChanged, FanOutFailure, FanOutProgress
from supervisor.models import Guest, InstanceStatistics, Operation
from tests.harness.told_hosts import BEGIN, instance, reset
from tests.harness.recorded_supervisor import RecordedSupervisor

hostile = {HOSTILE!r}
vm = instance("vm", state_error=hostile, exit_message=hostile, exit_code=1, image=hostile)
asked = Operation(verb=hostile, asked_by=hostile)
named = instance("other", age=1).model_copy(update={{"name": hostile, "operation": asked}})
events = [
    reset([vm, named], [InstanceStatistics(id="vm", guest=Guest(corrupt=hostile))]),
    Activity(at=BEGIN, level="alarm", message=hostile),
    FanOutChanged(fan_out=FanOutProgress(
        operation=Operation(
            id="o", verb="fan-out", instance_id="vm", name=hostile, asked_by=hostile, since=BEGIN, done=1, total=3,
            outcome="failed",
        ),
        concurrency=2, failed=2, limiting="memory", milliseconds=9.0,
        failures=(FanOutFailure(name=hostile, error=ErrorBody(code="vmm_failed", message=hostile)),),
    )),
    Activity(at=BEGIN, level="info", message="the last event"),
]
ForkTui(RecordedSupervisor(events), title=hostile, now=lambda: 0.0).run()
"""


def test_hostile_text_never_reaches_the_terminal_as_control_bytes() -> None:
    with on_a_terminal(sys.executable, "-c", SCRIPT) as (terminal, _):
        terminal.until("fan-out of")
        terminal.press("B")
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
    assert_only_drawn(terminal)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("a", "found its memory to be wrong"),
        ("I", "  Origin"),
        ("b", "Fan-outs"),
        ("E", "selected instance"),
        ("?", "Virtual machines"),
    ],
)
def test_hostile_text_is_only_drawn_on_what_is_opened(key: str, words: str) -> None:
    with on_a_terminal(sys.executable, "-c", SCRIPT) as (terminal, _):
        terminal.until("fan-out of")
        terminal.press(key)
        terminal.until(words)
        terminal.press("\x1b[27uq")
        terminal.drain()
    assert_only_drawn(terminal)


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


@pytest.mark.parametrize(
    ("environment", "is_tty", "size", "words"),
    [
        ({"TERM": "xterm"}, False, GOOD, "must be a terminal"),
        ({"TERM": "dumb"}, True, GOOD, "TERM=dumb"),
        ({}, True, GOOD, "TERM="),
        ({"TERM": "xterm"}, True, os.terminal_size((MIN_COLUMNS - 1, 24)), f"39x24 and {MIN_COLUMNS}x{MIN_LINES}"),
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
    mosh = {"SSH_TTY": "/dev/pts/1"}
    prepare(mosh)
    assert mosh["TEXTUAL_FPS"] == "15"
    here: dict[str, str] = {}
    prepare(here)
    assert here == {"TEXTUAL_FPS": "120"}


@pytest.mark.parametrize(
    ("inherited", "says", "fewer"),
    [
        ({}, "echo SSH_CONNECTION=1 2 3 4", True),
        ({"SSH_CONNECTION": "1 2 3 4"}, "echo -SSH_CONNECTION", False),
        ({"SSH_CONNECTION": "1 2 3 4"}, "echo no server running >&2; exit 1", True),
        ({}, "exit 1", False),
    ],
)
def test_in_tmux_it_counts_from_where_the_client_is_attached(
    inherited: dict[str, str], says: str, fewer: bool, tmp_path: Path
) -> None:
    tmux = tmp_path / "tmux"
    tmux.write_text(f"#!/bin/sh\n{says}\n")
    tmux.chmod(0o755)
    environment = {**inherited, "TMUX": "/tmp/tmux-0/default,1,0", "PATH": f"{tmp_path}:/bin:/usr/bin"}
    prepare(environment)
    assert (environment["TEXTUAL_FPS"] == "15") == fewer


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
