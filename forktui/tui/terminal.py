"""The way into the dashboard: what the terminal must be able to do, and what must be set before Textual is imported."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from forktui.tui.variables import DRIVER, LOG, THEME, refused, wrong_variable
from supervisor.programs import FAILED, say

if TYPE_CHECKING:
    from forktui.client.api import SupervisorClient
    from forktui.tui.app import Companion

MIN_COLUMNS = 40
MIN_LINES = 12
SSH_FRAMES_PER_SECOND = "15"
TMUX_SECONDS = 1.0
FRAMES_PER_SECOND = "120"
"""What a key changes waits for the next frame: with Textual's own sixty for a sixtieth of a second at most. What events
draw has a pace of its own."""
USAGE = 2


def run(
    source: "Path | SupervisorClient",
    *,
    on_mount_focus: str | None = None,
    mouse: bool = True,
    title: str = "",
    companion: "Companion | None" = None,
    private: bool = False,
) -> int:
    """Show the dashboard of a supervisor, by its socket or a client of it that is not entered yet, until it is quit.

    `on_mount_focus` is the name of the instance to begin on; `companion` runs beside the dashboard, with which a
    `private` supervisor ends. Returns the exit code: 2, after one line on stderr, where the terminal cannot show it,
    and 1 after one of its own failing.
    """
    refusal = refusal_here()
    if refusal is not None:
        say(f"forktui: {refusal}")
        return USAGE
    from forktui.tui.app import ForkTui
    from forktui.tui.choices import kept_choices
    from forktui.tui.faults import told
    from forktui.tui.garbage import collect_seldom

    collect_seldom()
    app = ForkTui(
        source,
        on_mount_focus=on_mount_focus,
        title=title,
        companion=companion,
        private=private,
        choices=kept_choices(),
    )
    try:
        app.run(mouse=mouse)
    except Exception as error:
        app.fault = app.fault or error
    if app.fault is not None:
        told(app.fault)
        return FAILED
    return app.return_code or 0


def refusal_here() -> str | None:
    """Why the dashboard cannot be drawn on this process's terminal; None where it can.

    Imports Textual where all else is well, and nothing before it does: it reads the environment when it is imported.
    """
    # Textual reads from standard input and draws on standard error.
    is_tty = all(stream.isatty() for stream in (sys.stdin, sys.stdout, sys.stderr))
    refusal = terminal_refusal(os.environ, is_tty, shutil.get_terminal_size())
    refusal = refusal or wrong_variable(os.environ) or _wrong_log(os.environ)
    if refusal is None:
        prepare(os.environ)
        refusal = _wrong_name(os.environ)
    return refusal


def _wrong_log(environment: Mapping[str, str]) -> str | None:
    """Why the file that Textual is to log to, which it appends to at every line, is none."""
    file = environment.get(LOG)
    try:
        # An empty name is no file to Textual.
        if file:
            # A FIFO that nobody reads would be waited for without O_NONBLOCK: open(2).
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC, 0o644))
    except OSError as error:
        return refused(LOG, file or "", f"it takes a file that can be written: {error.strerror}")
    return None


def _wrong_name(environment: Mapping[str, str]) -> str | None:
    """Why a driver or a theme that a variable names is none; None where it is one. Imports Textual."""
    driver = environment.get(DRIVER)
    if driver is not None:
        module, _, name = driver.partition(":")
        try:
            found = getattr(import_module(module), name)
        except (ImportError, AttributeError, ValueError, TypeError):
            found = None
        from textual.driver import Driver

        if not (isinstance(found, type) and issubclass(found, Driver)):
            return refused(DRIVER, driver, "it takes the name of a driver as module:Class")
    theme = environment.get(THEME)
    from forktui.tui.theme import theme_names

    if theme and theme not in theme_names():
        return refused(THEME, theme, f"it takes one of {', '.join(theme_names())}")
    return None


def terminal_refusal(environment: Mapping[str, str], is_tty: bool, size: os.terminal_size) -> str | None:
    """Why the dashboard cannot be drawn here and what to do instead, in one line; None where it can."""
    instead = "use `forktui ls` or `forktui demo --headless` instead"
    if not is_tty:
        return f"standard input, output and error must be a terminal; {instead}"
    if environment.get("TERM", "dumb") in ("", "dumb", "unknown"):
        return f"TERM={environment.get('TERM', '')} cannot move the cursor; set TERM, or {instead}"
    if size.columns < MIN_COLUMNS or size.lines < MIN_LINES:
        needed = f"{MIN_COLUMNS}x{MIN_LINES}"
        return f"the terminal is {size.columns}x{size.lines} and {needed} is needed; enlarge it, or {instead}"
    return None


def prepare(environment: dict[str, str] | os._Environ[str]) -> None:
    """Set what Textual reads when it is imported, unless the user has: over SSH fewer frames and no animation."""
    if _over_ssh(environment):
        environment.setdefault("TEXTUAL_FPS", SSH_FRAMES_PER_SECOND)
        environment.setdefault("TEXTUAL_ANIMATIONS", "none")
        environment.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    environment.setdefault("TEXTUAL_FPS", FRAMES_PER_SECOND)


def _over_ssh(environment: Mapping[str, str]) -> bool:
    """Whether somebody looks on from another host: mosh leaves what sshd has set, and tmux is asked who is attached."""
    if environment.get("TMUX"):
        # Its server may have been started at the console, or a session be older than the connection: what a pane has
        # inherited says nothing, and tmux has it from the client that was attached last.
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            asked = ("tmux", "show-environment", "SSH_CONNECTION")
            told = subprocess.run(
                asked, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=TMUX_SECONDS, check=True
            )
            return told.stdout.startswith(b"SSH_CONNECTION=")
    return any(environment.get(name) for name in ("SSH_CONNECTION", "SSH_CLIENT", "SSH_TTY"))
