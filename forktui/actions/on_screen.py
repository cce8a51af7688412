"""What is done on the screen alone: the tree, the panes, the application."""

from typing import Final

from forktui.actions.action import Group, OnScreen
from forktui.model.forest import Order

CONSOLE: Final = OnScreen(
    word="console",
    also=("logs",),
    keys=("c",),
    label="Console",
    help="The last lines that the guest has printed",
    group=Group.MACHINES,
    do=lambda desk, words: desk.show_console(),
)
COPY_ID: Final = OnScreen(
    word="copy-id",
    keys=("y",),
    label="Copy id",
    help="Put the instance's id on the clipboard and show it",
    group=Group.MACHINES,
    do=lambda desk, words: desk.copy_id(),
)
MARK: Final = OnScreen(
    word="mark",
    keys=("space",),
    label="Mark",
    help="Mark or unmark the instance: actions then act on all that are marked",
    group=Group.TREE,
    do=lambda desk, words: desk.toggle_mark(),
)
UNMARK: Final = OnScreen(
    word="unmark",
    keys=("u",),
    label="Clear marks",
    help="Unmark every instance",
    group=Group.TREE,
    do=lambda desk, words: desk.clear_marks(),
)
TOGGLE: Final = OnScreen(
    word="toggle",
    keys=("enter",),
    label="Open/close",
    help="Open or close the forks below",
    group=Group.TREE,
    do=lambda desk, words: desk.toggle_tree(),
)
TOGGLE_ALL: Final = OnScreen(
    word="toggle-all",
    keys=("z",),
    label="Open/close all",
    help="Close every tree, or open all of them again",
    group=Group.TREE,
    do=lambda desk, words: desk.toggle_trees(),
)
FILTER: Final = OnScreen(
    word="filter",
    keys=("slash",),
    shown_key="/",
    label="Filter",
    help="Show what matches all words (name, id, state, firecracker, uffd, locked…) and its sources; Esc ends it",
    group=Group.TREE,
    do=lambda desk, words: desk.filter(words),
    takes=None,
    footer=True,
)
SORT: Final = OnScreen(
    word="sort",
    keys=("o",),
    label="Order",
    help="Sort siblings by creation, name, state, faults or private memory",
    group=Group.TREE,
    do=lambda desk, words: desk.sort(words),
    takes=tuple(Order),
)
DETAILS: Final = OnScreen(
    word="details",
    keys=("i",),
    label="Details",
    help="Show or hide the selected instance's details and page map",
    group=Group.VIEW,
    do=lambda desk, words: desk.toggle_details(),
)
EVENTS: Final = OnScreen(
    word="events",
    keys=("e",),
    label="Events",
    help="Show or hide the event pane",
    group=Group.VIEW,
    do=lambda desk, words: desk.toggle_events(),
)
ALL_EVENTS: Final = OnScreen(
    word="all-events",
    keys=("E",),
    label="All events",
    help="The events in full: to search, to wrap, or of one instance",
    group=Group.VIEW,
    do=lambda desk, words: desk.show_events(),
)
HOLD: Final = OnScreen(
    word="hold",
    keys=("p",),
    label="Hold",
    help="Hold the event pane still, or follow it again",
    group=Group.VIEW,
    do=lambda desk, words: desk.hold_events(),
)
ALARMS: Final = OnScreen(
    word="alarms",
    keys=("a",),
    label="Alarms",
    help="What is wrong and what was, in full: to acknowledge, or to go to whom it concerns",
    group=Group.VIEW,
    do=lambda desk, words: desk.show_alarms(),
)
COMMAND_LINE: Final = OnScreen(
    word="command",
    keys=("colon",),
    shown_key=":",
    label="Command",
    help="Type an action by its word, as in `fan-out 20`, `delete web-1`, `sort faults`: Tab completes, Up repeats",
    group=Group.APPLICATION,
    do=lambda desk, words: desk.open_command_line(),
)
RECONNECT: Final = OnScreen(
    word="reconnect",
    keys=("ctrl+r",),
    shown_key="^r",
    label="Reconnect",
    help="Try the supervisor again now",
    group=Group.APPLICATION,
    do=lambda desk, words: desk.reconnect(),
)
HELP: Final = OnScreen(
    word="help",
    keys=("question_mark", "f1"),
    shown_key="?",
    label="Help",
    help="This list; / searches it",
    group=Group.APPLICATION,
    do=lambda desk, words: desk.show_help(words),
    takes=None,
    footer=True,
)
QUIT: Final = OnScreen(
    word="quit",
    also=("q", "exit"),
    keys=("q",),
    label="Quit",
    help="Leave forktui",
    group=Group.APPLICATION,
    do=lambda desk, words: desk.leave(),
    footer=True,
)
