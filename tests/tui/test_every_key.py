"""Every key of the help, pressed on a terminal beside a real supervisor: what each does is on the screen."""

import asyncio
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from textual.binding import Binding

from forktui.actions.registry import ACTIONS
from forktui.tui.widgets.fork_tree import ForkTree
from tests.harness.own_terminal import Terminal, assert_left, on_a_terminal
from tests.harness.supervisor_process import Home, supervisor

Step = tuple[str, str]
"""A key as Textual names it, or words that are typed, which begin with an equals sign; then what is on the screen, or
behind an exclamation mark what is there no more."""

# Escape as it is sent by terminals that tell it from the beginning of a sequence: else a key at once behind it is Alt.
SEQUENCES = {
    "enter": "\r",
    "escape": "\x1b[27u",
    "space": " ",
    "backspace": "\x7f",
    "delete": "\x1b[3~",
    "up": "\x1b[A",
    "down": "\x1b[B",
    "right": "\x1b[C",
    "left": "\x1b[D",
    "shift+up": "\x1b[1;2A",
    "shift+down": "\x1b[1;2B",
    "home": "\x1b[H",
    "end": "\x1b[F",
    "pageup": "\x1b[5~",
    "pagedown": "\x1b[6~",
    "f1": "\x1bOP",
    "slash": "/",
    "colon": ":",
    "question_mark": "?",
    "asterisk": "*",
    "full_stop": ".",
    "less_than_sign": "<",
    "greater_than_sign": ">",
}

MAKING: Sequence[Step] = (
    ("", "There is no instance yet."),
    ("f1", "Virtual machines"),
    ("escape", "!Virtual machines"),
    ("question_mark", "Virtual machines"),
    ("slash", "words in what is listed"),
    ("=fan", "End what is under way: a fan-out"),
    ("enter", "Fan out"),
    ("escape", "Checkpoint"),
    ("escape", "!Virtual machines"),
    ("n", "A new instance"),
    ("=web", "boots at once"),
    ("enter", "web: created from image pagewalker"),
    ("c", "Console of web"),
    ("", "done"),
    ("escape", "!Console of"),
    ("", "web  ● Running"),
    ("y", "sent to the clipboard"),
    ("C", "Checkpoint web"),
    ("=held", "held"),
    ("enter", "held: checkpoint of web"),
    ("X", "Cancel refused"),
    ("A", "Accept refused"),
    ("s", "web: in Standby"),
    ("F", "How many forks of web?"),
    ("=3", "3 take"),
    ("enter", "fan-out of web  3 of 3 forks"),
    ("b", "Fan-outs"),
    ("escape", "!Fan-outs"),
    ("B", "web: fan-out made 3 of 3 forks"),
    ("r", "Restore refused"),
    ("f", "name "),
    ("=single", "single"),
    ("enter", "single: forked from web"),
)
"""Until there are a source, a checkpoint and four forks."""
ARRANGING: Sequence[Step] = (
    ("end", "single  ● Running"),
    ("G", "single  ● Running"),
    ("home", "web  ■ Standby"),
    ("g", "web  ■ Standby"),
    ("down", "held  ■ Standby"),
    ("j", "web-1  ● Running"),
    ("k", "held  ■ Standby"),
    ("up", "web  ■ Standby"),
    ("right", "held  ■ Standby"),
    ("left", "web  ■ Standby"),
    ("l", "held  ■ Standby"),
    ("h", "web  ■ Standby"),
    ("pagedown", "single  ● Running"),
    ("pageup", "web  ■ Standby"),
    ("ctrl+f", "single  ● Running"),
    ("ctrl+b", "web  ■ Standby"),
    ("enter", "▸ web"),
    ("enter", "▾ web"),
    ("z", "▸ web"),
    ("z", "▾ web"),
    ("space", "1 marked"),
    ("shift+down", "2 marked"),
    ("shift+up", "2 marked"),
    ("J", "2 marked"),
    ("K", "2 marked"),
    ("v", "2 marked"),
    ("home", "web  ■ Standby"),
    ("M", "6 marked"),
    ("u", "▾ web"),
    ("asterisk", "6 marked"),
    ("u", "▾ web"),
    ("slash", "web state:running"),
    ("=name:single", "1 of 6 match"),
    ("enter", "Esc ends the filter"),
    ("escape", "!Esc ends the filter"),
    ("o", "Columns"),
    ("escape", "!Columns"),
    ("greater_than_sign", "▲backend"),
    ("less_than_sign", "▼age"),
    ("O", "▲age"),
    ("T", "has no sum"),
    ("O", "▼age"),
)
LOOKING: Sequence[Step] = (
    ("end", "single  ● Running"),
    ("i", "single: forked from web"),
    ("i", "page map"),
    ("I", "  Origin"),
    ("escape", "!  Origin"),
    ("e", "page map"),
    ("e", "events"),
    ("E", "i selected instance"),
    ("escape", "!i selected instance"),
    ("p", "held, 0 newer"),
    ("p", "page map"),
    ("a", "Alarms"),
    ("escape", "!Alarms"),
    ("colon", ""),
    ("=sort name", "sort name"),
    ("enter", "instance ▲"),
    ("ctrl+r", "● live"),
)
ENDING: Sequence[Step] = (
    ("t", "Detach single?"),
    ("y", "single: detached"),
    ("x", "Stop single?"),
    ("y", "single: stopped"),
    ("full_stop", "ended hidden"),
    ("full_stop", "single  ○ Stopped"),
    ("delete", "Delete single?"),
    ("escape", "!Delete single?"),
    ("d", "Delete single?"),
    ("y", "single: deleted"),
    ("home", "web  ■ Standby"),
    ("d", "What goes: 5 instances"),
    ("y", "There is no instance yet."),
)


def keys_of_the_help() -> Iterator[str]:
    """Every key that it lists."""
    for action in ACTIONS:
        yield from action.keys
    for binding in ForkTree.BINDINGS:
        assert isinstance(binding, Binding)
        yield from binding.key.split(",")


def take(terminal: Terminal, steps: Sequence[Step]) -> set[str]:
    """Press each key and wait for what it shows; returns the keys."""
    pressed = set()
    for key, words in steps:
        if key.startswith("="):
            terminal.press(key[1:])
        elif key:
            control = chr(ord(key[-1]) - 96) if key.startswith("ctrl+") else key
            terminal.press(SEQUENCES.get(key, control))
            pressed.add(key)
        terminal.until_gone(words[1:]) if words.startswith("!") else terminal.until(words)
    return pressed


async def test_every_key_of_the_help_does_what_it_says(firecracker_home: Home, tmp_path: Path) -> None:
    async with supervisor(firecracker_home) as running:
        command = (sys.executable, "-m", "forktui", "--run-dir", str(running.home.socket.parent))
        with on_a_terminal(*command, environment={"XDG_STATE_HOME": str(tmp_path)}) as (terminal, _):
            pressed: set[str] = set()
            for steps in (MAKING, ARRANGING, LOOKING, ENDING):
                pressed |= await asyncio.to_thread(take, terminal, steps)
            terminal.press("q")
            await asyncio.to_thread(terminal.drain)
    assert set(keys_of_the_help()) - pressed - {"q"} == set()
    assert_left(terminal)
