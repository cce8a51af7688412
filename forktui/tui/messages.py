"""What workers and screens tell the application; the application alone owns the world and the client."""

from collections.abc import Sequence
from typing import Literal

from textual.message import Message

from forktui.client.feed import Connection
from forktui.tui.verbs import Outcome
from supervisor.models import DeletionPlan, Event, PageMapFold


class Heard(Message):
    """The supervisor has sent an event."""

    def __init__(self, event: Event) -> None:
        super().__init__()
        self.event = event


class LinkChanged(Message):
    """The connection to the supervisor was lost, tried or made."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection


class Wanted(Message):
    """The operator wants an action done on instances; nothing is left to ask."""

    def __init__(self, action_id: str, instance_ids: Sequence[str], count: int = 1) -> None:
        super().__init__()
        self.action_id = action_id
        self.instance_ids = tuple(instance_ids)
        self.count = count


class PlanWanted(Message):
    """The operator thinks of deleting a source with all that is below it."""

    def __init__(self, instance_id: str) -> None:
        super().__init__()
        self.instance_id = instance_id


class Planned(Message):
    """What goes with a source that is deleted with all that is below it."""

    def __init__(self, plan: DeletionPlan) -> None:
        super().__init__()
        self.plan = plan


class EstimateWanted(Message):
    """The operator thinks of a fan-out of an instance."""

    def __init__(self, instance_id: str) -> None:
        super().__init__()
        self.instance_id = instance_id


class Estimated(Message):
    """How many forks fit on the host, in words; or why that cannot be told."""

    def __init__(self, line: str) -> None:
        super().__init__()
        self.line = line


class Finished(Message):
    """An action is done, or was refused."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


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


class RetryWanted(Message):
    """The operator does not want to wait for the next attempt to connect."""


class BackgroundTold(Message):
    """The terminal has said whether its background is light."""

    def __init__(self, light: bool) -> None:
        super().__init__()
        self.light = light


class Said(Message):
    """Something to tell the operator in one line; it is text, never markup."""

    def __init__(self, line: str, severity: Literal["information", "warning", "error"] = "information") -> None:
        super().__init__()
        self.line = line
        self.severity = severity
