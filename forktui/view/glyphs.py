"""The characters that the screen is drawn with: one cell each, in a Unicode and an ASCII set."""

import locale
from collections.abc import Mapping
from dataclasses import dataclass

from supervisor.models import State


@dataclass(frozen=True)
class Glyphs:
    """One set. Every string is as wide as it is long in any terminal: no emoji, no variation selectors."""

    branch: str
    last_branch: str
    bar: str
    rule: str
    gap: str
    opened: str
    closed: str
    deeper: str
    rising: str
    falling: str
    mark: str
    lock: str
    record: str
    ellipsis: str
    none: str
    dot: str
    live: str
    lost: str
    states: Mapping[State, str]
    died: str
    """In the place of a state's."""
    working: str
    heights: str
    """A bar from one eighth to full height."""
    full: str
    levels: Mapping[str, str]
    absent: str
    faulted: str
    fault_around: str
    prefetched: str
    zero: str
    mixed: str
    steps: Mapping[str, str]
    """What a fork's time is drawn with, by the step that it took; another step is `full`."""


UNICODE = Glyphs(
    branch="├─ ",
    last_branch="└─ ",
    bar="│  ",
    rule="│",
    gap="   ",
    opened="▾",
    closed="▸",
    deeper="⋯",
    rising="▲",
    falling="▼",
    mark="▌",
    lock="◆",
    record="●",
    ellipsis="…",
    none="·",
    dot="·",
    live="●",
    lost="○",
    states={
        State.CREATED: "◌",
        State.INITIALIZING: "◌",
        State.RUNNING: "●",
        State.PAUSED: "◐",
        State.SHUTDOWN: "◌",
        State.STOPPED: "○",
        State.STANDBY: "■",
        State.UNKNOWN: "?",
    },
    died="✗",
    working="↻",
    heights="▁▂▃▄▅▆▇█",
    full="━",
    levels={"info": "·", "warning": "▲", "alarm": "■"},
    absent="·",
    faulted="█",
    fault_around="▓",
    prefetched="▒",
    zero="○",
    mixed="▚",
    steps={
        "wait": "·",
        "prepare": "╌",
        "spawn": "─",
        "load": "━",
        "prefetch": "═",
        "resume": "╍",
        "rest": "┈",
        "making": "┈",
    },
)

ASCII = Glyphs(
    branch="|- ",
    last_branch="`- ",
    bar="|  ",
    rule="|",
    gap="   ",
    opened="-",
    closed="+",
    deeper="~",
    rising="^",
    falling="v",
    mark="*",
    lock="#",
    record="o",
    ellipsis="~",
    none="-",
    dot="-",
    live="*",
    lost="o",
    states={
        State.CREATED: ".",
        State.INITIALIZING: ".",
        State.RUNNING: "*",
        State.PAUSED: "=",
        State.SHUTDOWN: ".",
        State.STOPPED: "o",
        State.STANDBY: "#",
        State.UNKNOWN: "?",
    },
    died="x",
    working="%",
    heights="_.:-=+*#",
    full="=",
    levels={"info": "-", "warning": "!", "alarm": "#"},
    absent=".",
    faulted="#",
    fault_around="+",
    prefetched="=",
    zero="0",
    mixed="%",
    steps={
        "wait": ".",
        "prepare": ",",
        "spawn": "-",
        "load": "=",
        "prefetch": "#",
        "resume": ">",
        "rest": ":",
        "making": ":",
    },
)


def glyphs(environment: Mapping[str, str]) -> Glyphs:
    """The ASCII set where FORKTUI_ASCII=1 or the locale is not UTF-8, else the Unicode set."""
    wanted = environment.get("FORKTUI_ASCII", "")
    if wanted:
        return ASCII if wanted == "1" else UNICODE
    return UNICODE if "utf" in locale.getencoding().lower() else ASCII
