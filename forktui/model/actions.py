"""Every action once: its key, what it does, and why it is refused. Keys, footer, help and palette read this. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from forktui.model.world import World
from forktui.text.quantities import names
from supervisor.models import Instance, State

Guard = Callable[[Instance, Sequence[Instance]], str | None]
"""Why one instance refuses an action on all the selected ones; None where it does not."""


class Group(StrEnum):
    """The sections of the help screen."""

    MACHINES = "Virtual machines"
    TREE = "Fork tree"
    VIEW = "View"
    APPLICATION = "forktui"


@dataclass(frozen=True)
class Action:
    """Something a key does. `keys` are Textual's names, the first of them shown; `footer` puts it into the footer."""

    id: str
    keys: tuple[str, ...]
    label: str
    help: str
    group: Group
    guard: Guard | None = None
    """Only actions that change an instance have one."""
    shown_key: str = ""
    footer: bool = False
    while_busy: bool = False
    """Needs no wait for what is under way on an instance: it ends that."""
    one: bool = False
    """Acts on the instance under the cursor, never on all that are marked."""

    @property
    def key(self) -> str:
        """The key as an operator reads it."""
        return self.shown_key or self.keys[0]

    @property
    def name(self) -> str:
        """What it is called where nothing follows: the label without its ellipsis."""
        return self.label.rstrip("…")

    def refused(self, world: World, selection: Sequence[str], connected: bool, writable: bool) -> str | None:
        """Why the action cannot be done on the selected instances now and what would allow it; None where it can.

        `connected` tells whether the data is live, `writable` whether the supervisor lets this user change anything.
        """
        if self.guard is None:
            return None
        if not connected:
            return f"{self.name} refused: not connected to the supervisor, or it does not answer"
        if not writable:
            return (
                f"{self.name} refused: read-only; the supervisor lets only its own user, root and its group change it"
            )
        selected = [world.instances[i] for i in selection if i in world.instances]
        if not selected:
            return f"{self.name} refused: no instance is selected"
        for instance in selected:
            if reason := self._busy(instance) or self.guard(instance, selected):
                return f"{self.name} refused: {reason}" if len(selected) == 1 else _of_many(self.name, reason, selected)
        return None

    def _busy(self, instance: Instance) -> str | None:
        if self.while_busy or not instance.busy:
            return None
        return f"{instance.name}: {instance.busy} is under way; wait for it, or cancel it (X)"


def _of_many(label: str, reason: str, selected: Sequence[Instance]) -> str:
    return f"{label} of {len(selected)} marked refused: {reason} (u clears the marks)"


def _locked(instance: Instance, released: frozenset[str] = frozenset()) -> str | None:
    """Why the lock forbids, where forks other than the `released` ones hold it."""
    if not instance.mem_locked or (instance.locked_by and released.issuperset(instance.locked_by)):
        return None
    forks, them = ("share_memory fork", "it") if instance.fork_count == 1 else ("share_memory forks", "them")
    held_by = names(instance.locked_by, total=instance.fork_count)
    return (
        f"{instance.name} has {instance.fork_count} {forks} ({held_by}): delete {them} first (d), or detach {them} (t)"
    )


def _fork(instance: Instance, selected: Sequence[Instance]) -> str | None:
    if instance.state in (State.STANDBY, State.RUNNING):
        return None
    remedy = "press r to start it, then s" if instance.state is State.STOPPED else "a fork needs Standby or Running"
    return f"{instance.name} is {instance.state}: {remedy}"


def _fan_out(instance: Instance, selected: Sequence[Instance]) -> str | None:
    if instance.state is State.STANDBY:
        return None
    remedy = {State.RUNNING: "press s to put it to standby first", State.STOPPED: "press r to start it, then s"}
    return f"{instance.name} is {instance.state}: {remedy.get(instance.state, 'share_memory forks need Standby')}"


def _delete(instance: Instance, selected: Sequence[Instance]) -> str | None:
    """A locked source by itself is offered with its whole tree."""
    return None if len(selected) == 1 else _locked(instance, frozenset(other.name for other in selected))


def _standby(instance: Instance, selected: Sequence[Instance]) -> str | None:
    if instance.state is State.RUNNING:
        return None
    if instance.state is State.STANDBY:
        return f"{instance.name} is in Standby already"
    return f"{instance.name} is {instance.state}: only a Running instance can be put to standby"


def _checkpoint(instance: Instance, selected: Sequence[Instance]) -> str | None:
    if instance.state is State.RUNNING:
        return None
    if instance.state is State.STANDBY:
        return f"{instance.name} is in Standby: press f to fork it"
    remedy = "press r to start it" if instance.state is State.STOPPED else "only a Running instance has one"
    return f"{instance.name} is {instance.state}: {remedy}"


def _restore(instance: Instance, selected: Sequence[Instance]) -> str | None:
    if instance.state in (State.STANDBY, State.STOPPED):
        return _locked(instance)
    if instance.state is State.RUNNING:
        return f"{instance.name} is Running already"
    return f"{instance.name} is {instance.state}: only Standby can be restored, only Stopped started"


def _detach(instance: Instance, selected: Sequence[Instance]) -> str | None:
    if instance.fork_kind != "share_memory":
        return f"{instance.name} is no share_memory fork: it holds no lock"
    if instance.state in (State.RUNNING, State.STANDBY, State.STOPPED):
        return None
    return f"{instance.name} is {instance.state}: only Running, Standby or Stopped forks can let go of their source"


def _stop(instance: Instance, selected: Sequence[Instance]) -> str | None:
    if instance.state in (State.RUNNING, State.PAUSED, State.INITIALIZING):
        return None
    if instance.state is State.STOPPED:
        return f"{instance.name} is Stopped already"
    if instance.state is State.STANDBY:
        return f"{instance.name} is in Standby: it does not run, so there is nothing to stop"
    return f"{instance.name} is {instance.state}: only a running VM can be stopped"


def _cancel(instance: Instance, selected: Sequence[Instance]) -> str | None:
    return None if instance.operation is not None else f"nothing is under way on {instance.name}"


ACTIONS: tuple[Action, ...] = (
    Action(
        "fork",
        ("f",),
        "Fork",
        "One fork that shares the memory of a Standby source; of a Running one a copy, after a question",
        Group.MACHINES,
        _fork,
        footer=True,
    ),
    Action(
        "fan_out",
        ("F",),
        "Fan out…",
        "Ask for a number and make that many share_memory forks at once",
        Group.MACHINES,
        _fan_out,
        footer=True,
        one=True,
    ),
    Action(
        "checkpoint",
        ("C",),
        "Checkpoint",
        "A Standby instance of a Running one, which is paused for milliseconds and runs on",
        Group.MACHINES,
        _checkpoint,
    ),
    Action(
        "delete",
        ("d", "delete"),
        "Delete",
        "Delete the instance and its files, of a locked source the whole tree, after a question that says what goes",
        Group.MACHINES,
        _delete,
        footer=True,
        while_busy=True,
    ),
    Action(
        "standby",
        ("s",),
        "Standby",
        "Write the memory of a Running instance to a snapshot and end its VMM",
        Group.MACHINES,
        _standby,
        footer=True,
    ),
    Action(
        "restore",
        ("r",),
        "Restore",
        "Run a Standby instance from its snapshot, or start a Stopped one",
        Group.MACHINES,
        _restore,
        footer=True,
    ),
    Action(
        "stop",
        ("x",),
        "Stop",
        "End the VMM without a snapshot, after a question: what is in memory is lost",
        Group.MACHINES,
        _stop,
        footer=True,
        while_busy=True,
    ),
    Action(
        "detach",
        ("t",),
        "Detach",
        "Give a share_memory fork all of its memory, so that its source is locked no more; the guest goes on",
        Group.MACHINES,
        _detach,
    ),
    Action(
        "cancel",
        ("X",),
        "Cancel",
        "End what is under way: a fan-out, whose forks stay as far as they are made, a deletion, a detach, a snapshot",
        Group.MACHINES,
        _cancel,
        while_busy=True,
    ),
    Action("console", ("c",), "Console", "The last lines that the guest has printed", Group.MACHINES, one=True),
    Action(
        "copy_id", ("y",), "Copy id", "Put the instance's id on the clipboard and show it", Group.MACHINES, one=True
    ),
    Action(
        "mark", ("space",), "Mark", "Mark or unmark the instance: actions then act on all that are marked", Group.TREE
    ),
    Action("unmark", ("u",), "Clear marks", "Unmark every instance", Group.TREE),
    Action("toggle", ("enter",), "Open/close", "Open or close the forks below", Group.TREE),
    Action("toggle_all", ("z",), "Open/close all", "Close every tree, or open all of them again", Group.TREE),
    Action(
        "filter_rows",
        ("slash",),
        "Filter",
        "Show what matches all words (name, id, state, firecracker, uffd, locked…) and its sources; Esc ends it",
        Group.TREE,
        shown_key="/",
        footer=True,
    ),
    Action("order", ("o",), "Order", "Sort siblings by creation, name, state, faults or private memory", Group.TREE),
    Action("details", ("i",), "Details", "Show or hide the selected instance's details and page map", Group.VIEW),
    Action("events", ("e",), "Events", "Show or hide the event pane", Group.VIEW),
    Action(
        "events_full", ("E",), "All events", "The events in full: to search, to wrap, or of one instance", Group.VIEW
    ),
    Action("hold", ("p",), "Hold", "Hold the event pane still, or follow it again", Group.VIEW),
    Action("reconnect", ("ctrl+r",), "Reconnect", "Try the supervisor again now", Group.APPLICATION, shown_key="^r"),
    Action(
        "help",
        ("question_mark", "f1"),
        "Help",
        "This list",
        Group.APPLICATION,
        shown_key="?",
        footer=True,
    ),
    Action("quit", ("q",), "Quit", "Leave forktui", Group.APPLICATION, footer=True),
)

BY_ID = {action.id: action for action in ACTIONS}
