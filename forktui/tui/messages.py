"""What workers and screens tell the application; the application alone owns the world and the client."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Literal, TypeVar

from textual.message import Message
from textual.widget import Widget

from forktui.actions.action import Outcome, Verb
from forktui.actions.form import Values
from forktui.client.api import SupervisorClient
from forktui.client.feed import Connection
from forktui.model.alarms import Alarm
from forktui.model.world import World
from supervisor.models import Event, PageMapFold

Answer = TypeVar("Answer")


class Heard(Message):
    """The supervisor has sent events; those that are to be reduced yet come first."""

    def __init__(self, events: Sequence[Event] = ()) -> None:
        super().__init__()
        self.events = events


class LinkChanged(Message):
    """The connection to the supervisor was lost, tried or made."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection


class Wanted(Message):
    """The operator wants a verb done to instances; nothing is left to ask.

    `dialog`, where there is one, is told what came of it.
    """

    def __init__(
        self, verb: Verb, instance_ids: Sequence[str], values: Values | None = None, dialog: Widget | None = None
    ) -> None:
        super().__init__()
        self.verb = verb
        self.instance_ids = tuple(instance_ids)
        self.values = dict(values or {})
        self.dialog = dialog


class Finished(Message):
    """An action is done, or was refused."""

    def __init__(self, outcome: Outcome, dialog: Widget | None = None) -> None:
        super().__init__()
        self.outcome = outcome
        self.dialog = dialog


class Asking(Message, Generic[Answer]):
    """A dialog wants to know something of the supervisor, which it is told unless it has been closed.

    Of the questions of one `group` only the newest is answered.
    """

    def __init__(
        self,
        dialog: Widget,
        group: str,
        ask: Callable[[SupervisorClient, World], Awaitable[Answer]],
        tell: Callable[[Answer], None],
        refuse: Callable[[str], None],
    ) -> None:
        super().__init__()
        self.dialog = dialog
        self.group = group
        self.ask = ask
        self.tell = tell
        self.refuse = refuse


class PageMapWanted(Message):
    """The heat map has room for this many cells of an instance's page map."""

    def __init__(self, instance_id: str, cells: int) -> None:
        super().__init__()
        self.instance_id = instance_id
        self.cells = cells


class PageMapRead(Message):
    """A page map has come, or why it has not."""

    def __init__(self, instance_id: str, fold: PageMapFold | None, refusal: str = "") -> None:
        super().__init__()
        self.instance_id = instance_id
        self.fold = fold
        self.refusal = refusal


class ConsoleWanted(Message):
    """The operator wants to see an instance's console."""

    def __init__(self, instance_id: str) -> None:
        super().__init__()
        self.instance_id = instance_id


class Acknowledged(Message):
    """The operator has looked at these alarms, or at all."""

    def __init__(self, alarms: Sequence[Alarm] | None) -> None:
        super().__init__()
        self.alarms = alarms


class RetryWanted(Message):
    """The operator does not want to wait for the next attempt to connect."""


class BackgroundTold(Message):
    """The terminal has said whether its background is light."""

    def __init__(self, light: bool) -> None:
        super().__init__()
        self.light = light


class Said(Message):
    """Something to tell the operator in one line, while its cause `holds`; it is text, never markup."""

    def __init__(
        self,
        line: str,
        severity: Literal["information", "warning", "error"] = "information",
        holds: Callable[[], bool] = lambda: True,
    ) -> None:
        super().__init__()
        self.line = line
        self.severity = severity
        self.holds = holds
