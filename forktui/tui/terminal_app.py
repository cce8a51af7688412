"""How the application begins and ends on a terminal, whatever it shows: themes, signals, Ctrl-C, Ctrl-Z, faults."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, ClassVar

from rich.console import RenderableType
from textual import constants
from textual.app import SystemCommand
from textual.binding import Binding, BindingType
from textual.driver import Driver
from textual.screen import Screen
from textual.theme import Theme

from forktui.tui.background import can_be_asked, light_by_environment
from forktui.tui.choices import KeptChoices
from forktui.tui.driver import TerminalDriver, shell_waits
from forktui.tui.hang_up import on_hang_up
from forktui.tui.messages import BackgroundTold, Said
from forktui.tui.pictures import picture_file
from forktui.tui.theme import DARK, LIGHT, THEMES, ink_defaults
from forktui.tui.widgets.inked import InkedApp

AGAIN_SECONDS = 4.0
"""Within which a second Ctrl-C leaves."""


class TerminalApp(InkedApp):
    """An application that leaves the terminal as it was, however it ends, and keeps its theme.

    A theme is named by TEXTUAL_THEME, else it is the one that was chosen the last time, else the one of ours that goes
    with the terminal's background.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c", "interrupt", show=False, system=True, priority=True),
        Binding("ctrl+z", "suspend_process", show=False, system=True, priority=True),
        Binding("ctrl+s", "screenshot", show=False, system=True, priority=True),
    ]

    def __init__(self, choices: KeptChoices) -> None:
        # Textual removes colours only where the terminal's own are used; else it emits shades of grey for NO_COLOR.
        super().__init__(ansi_color=True if "NO_COLOR" in os.environ else None)
        self.choices = choices
        self.fault: BaseException | None = None
        """What it ended of, where that was a fault of its own."""
        self._interrupted_at = float("-inf")
        for theme in THEMES:
            self.register_theme(theme)
        chosen = [os.environ.get("TEXTUAL_THEME", ""), choices.now.theme]
        named = next((name for name in chosen if name in self.available_themes), None)
        self._follows_background = named is None
        self._shown_theme = named or (LIGHT if light_by_environment(os.environ) else DARK).name
        """What the program has set; every other is its user's choice."""
        self.theme = self._shown_theme
        # Where TEXTUAL_THEME names one of ours it is the theme already, from before it was registered.
        self.stylesheet.set_variables(self.get_css_variables())

    def get_driver_class(self) -> type[Driver]:
        return super().get_driver_class() if constants.DRIVER else TerminalDriver

    def get_theme_variable_defaults(self) -> dict[str, str]:
        return ink_defaults(self.current_theme)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        yield from (command for command in super().get_system_commands(screen) if command.title == "Theme")
        words = "Write what is shown to an SVG file, and say where that is"
        yield SystemCommand("Screenshot (^s)", words, partial(self.call_after_refresh, self.action_screenshot))

    def on_load(self) -> None:
        # Unwound by a signal, Textual would leave the terminal raw and its threads running.
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            asyncio.get_running_loop().add_signal_handler(number, partial(self.exit, return_code=1))
        if sys.stdin.isatty():
            on_hang_up(sys.stdin.fileno(), partial(self.exit, return_code=1))
        self.theme_changed_signal.subscribe(self, self._theme_changed)

    def on_mount(self) -> None:
        if self._follows_background and isinstance(self._driver, TerminalDriver) and can_be_asked(os.environ):
            self._driver.ask_background()

    def on_background_told(self, message: BackgroundTold) -> None:
        if self._follows_background:
            self._shown_theme = (LIGHT if message.light else DARK).name
            self.theme = self._shown_theme

    def _theme_changed(self, theme: Theme) -> None:
        if theme.name != self._shown_theme:
            self._shown_theme, self._follows_background = "", False
            self.run_worker(self._keep(theme=theme.name), name="choices", group="choices")

    async def _keep(self, **chosen: Any) -> None:
        refusal = await asyncio.to_thread(self.choices.keep, **chosen)
        if refusal is not None:
            self.post_message(Said(refusal, "warning"))

    def action_interrupt(self) -> None:
        """Leave at the second Ctrl-C: the first may be meant for something else, such as what is selected."""
        now = time.monotonic()
        if now < self._interrupted_at + AGAIN_SECONDS:
            self.exit()
        self._interrupted_at = now
        self.post_message(Said("Ctrl-C again leaves forktui; q leaves too"))

    def action_suspend_process(self) -> None:
        """Give the terminal back to the shell until it has this go on."""
        if not isinstance(self._driver, TerminalDriver):
            return
        if shell_waits():
            self._driver.stop_job()
        else:
            no_shell = "no shell with jobs has started forktui, and nothing would bring it back: q leaves"
            self.post_message(Said(no_shell, "warning"))

    async def run_beside(self, *command: str) -> None:
        """Give the terminal to a program, and have it again when that has ended; it is not run where there is none."""
        if not isinstance(self._driver, TerminalDriver):
            self.post_message(Said("there is no terminal here that another program could have", "warning"))
            return
        self._driver.lend()
        try:
            program = await asyncio.create_subprocess_exec(*command)
            await program.wait()
        finally:
            self._driver.resume_application_mode()
            self.refresh(layout=True)

    def action_screenshot(self, filename: str | None = None, path: str | None = None) -> None:
        """Write what is shown to a file, in the working directory or else where choices are kept."""
        self.run_worker(self._write_picture(self.export_screenshot()), name="screenshot", group="screenshot")

    async def _write_picture(self, svg: str) -> None:
        try:
            file = await asyncio.to_thread(picture_file, svg)
        except OSError as error:
            self.post_message(Said(f"no screenshot: {error.filename or ''}: {error.strerror}", "error"))
        else:
            self.post_message(Said(f"screenshot: {file}"))

    def panic(self, *renderables: RenderableType) -> None:
        self.fault = self.fault or sys.exc_info()[1] or RuntimeError("a thread has failed")
        self._fatal_error()

    def _fatal_error(self) -> None:
        # Textual's own answer is a traceback with the values of all variables, hundreds of lines for an operator.
        self.fault = self.fault or self._exception
        self._return_code = 1
        self._close_messages_no_wait()
