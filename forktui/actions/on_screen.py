"""What is done on the screen alone: the tree, the panes, the application."""

from typing import Final

from forktui.actions.action import Group, OnScreen
from forktui.view.columns import BY_WORD

REVERSED: Final = "reversed"
SUMS: Final = "sums"
"""What may follow the column behind `:sort`."""

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
    do=lambda desk, words: desk.forest.toggle_mark(),
)
MARK_FOUND: Final = OnScreen(
    word="mark-all",
    keys=("asterisk",),
    shown_key="*",
    label="Mark all",
    help="Mark all that the filter finds; without one, all that is not hidden",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.mark_found(),
)
MARK_TREE: Final = OnScreen(
    word="mark-tree",
    keys=("M",),
    label="Mark tree",
    help="Mark the instance and all below it, as far as the filter finds them",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.mark_tree(),
)
MARK_RANGE: Final = OnScreen(
    word="mark-range",
    keys=("v",),
    label="Mark range",
    help="Mark from the row that was marked last to this one",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.mark_range(),
)
UNMARK: Final = OnScreen(
    word="unmark",
    keys=("u",),
    label="Clear marks",
    help="Unmark every instance",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.clear_marks(),
)
TOGGLE: Final = OnScreen(
    word="toggle",
    keys=("enter",),
    label="Open/close",
    help="Open or close the forks below; so does a click on the arrow",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.toggle(),
)
TOGGLE_ALL: Final = OnScreen(
    word="toggle-all",
    keys=("z",),
    label="Open/close all",
    help="Close every tree, or open all of them again",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.toggle_all(),
)
FILTER: Final = OnScreen(
    word="filter",
    keys=("slash",),
    shown_key="/",
    label="Filter",
    help="Show what matches all words and fields (state:running vmm:embedded is:locked template:base…) and its"
    " sources, which are in brackets; Esc ends it",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.filter(words),
    takes=None,
    footer=True,
)
HIDE_ENDED: Final = OnScreen(
    word="hide-ended",
    keys=("full_stop",),
    shown_key=".",
    label="Hide ended",
    help="Hide those that have stopped, but for sources of others, or show them again",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.hide_ended(),
)
SORT: Final = OnScreen(
    word="sort",
    keys=("greater_than_sign",),
    shown_key=">",
    label="Sort on",
    help="Sort siblings by the next column to the right, or `:sort age reversed`; so does a click on a title",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.sort(words) if words else desk.forest.sort_beside(1),
    takes=(*BY_WORD, REVERSED, SUMS),
    several=True,
)
SORT_BACK: Final = OnScreen(
    word="sort-back",
    keys=("less_than_sign",),
    shown_key="<",
    label="Sort back",
    help="Sort siblings by the next column to the left",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.sort_beside(-1),
)
REVERSE: Final = OnScreen(
    word="reverse",
    keys=("O",),
    label="Reverse",
    help="Sort the other way round",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.turn_round(),
)
SUM_TREES: Final = OnScreen(
    word="sum-trees",
    keys=("T",),
    label="Sum trees",
    help="Sort by the sum over each instance and all below it, and show that, or each alone again",
    group=Group.TREE,
    do=lambda desk, words: desk.forest.sum_trees(),
)
COLUMNS: Final = OnScreen(
    word="columns",
    keys=("o",),
    label="Columns",
    help="Choose the columns, which is kept, and what to sort by",
    group=Group.TREE,
    do=lambda desk, words: desk.choose_columns(),
)
DETAILS: Final = OnScreen(
    word="details",
    keys=("i",),
    label="Details",
    help="Show or hide the selected instance's details and page map",
    group=Group.VIEW,
    do=lambda desk, words: desk.toggle_details(),
)
ALL_DETAILS: Final = OnScreen(
    word="all-details",
    keys=("I",),
    label="All details",
    help="The details in full: who holds its lock, faults, prefetch, processes, layers, clone hygiene, the page map",
    group=Group.VIEW,
    do=lambda desk, words: desk.show_details(),
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
FAN_OUTS: Final = OnScreen(
    word="bursts",
    keys=("b",),
    label="Fan-outs",
    help="The last fan-outs: how far each is, its forks as a waterfall, what limited it; X cancels it there",
    group=Group.VIEW,
    do=lambda desk, words: desk.show_fan_outs(),
)
DISMISS: Final = OnScreen(
    word="dismiss",
    keys=("B",),
    label="Dismiss fan-out",
    help="Close the pane of the fan-out, and have the events in its place again",
    group=Group.VIEW,
    do=lambda desk, words: desk.dismiss_fan_outs(),
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
    help="Type an action by its word, as in `fan-out 20`, `delete web-1`, `sort private`: Tab completes, Up repeats",
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
    help="Leave forktui; the host of a demo ends with it, VMs and all",
    group=Group.APPLICATION,
    do=lambda desk, words: desk.leave(),
    footer=True,
)
