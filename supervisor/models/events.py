"""What `GET /events` sends."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from supervisor.models.base import Level, Wire
from supervisor.models.errors import ErrorDetail
from supervisor.models.instances import (
    FanOutProgress,
    HostSnapshot,
    HostStatistics,
    Instance,
    InstanceStatistics,
    Template,
)


class Reset(Wire):
    """The first event of a stream that cannot be resumed: forget everything, start from this."""

    type: Literal["reset"] = "reset"
    snapshot: HostSnapshot


class InstanceChanged(Wire):
    """An instance is new or different; the whole of it."""

    type: Literal["instance"] = "instance"
    instance: Instance


class InstanceDeleted(Wire):
    """An instance is gone."""

    type: Literal["instance_deleted"] = "instance_deleted"
    id: str


class TemplateChanged(Wire):
    """A template is new or different; the whole of it."""

    type: Literal["template"] = "template"
    template: Template


class TemplateDeleted(Wire):
    """A template is gone: its last fork went, or its source was restored."""

    type: Literal["template_deleted"] = "template_deleted"
    id: str


class FanOutChanged(Wire):
    """A fan-out has begun, has gone on, or has ended; the whole of it but for its forks, which are told of as such."""

    type: Literal["fan_out"] = "fan_out"
    fan_out: FanOutProgress


class Statistics(Wire):
    """Counters that changed since the last such event; the only kind that may be superseded."""

    type: Literal["statistics"] = "statistics"
    at: datetime
    clock: float = 0.0
    """Seconds of the supervisor's boot clock, for rates and ages: `at` goes back where the clock is set back."""
    instances: tuple[InstanceStatistics, ...]
    host: HostStatistics


class Activity(Wire):
    """One line for the event pane: what happened, or who asked for what."""

    type: Literal["activity"] = "activity"
    at: datetime
    level: Level
    message: str
    instance_id: str | None = None
    code: str | None = None
    """Of the error that it tells of, as a refusal of the API has it."""
    details: tuple[ErrorDetail, ...] = ()
    """Of that error: a client with words of its own has the cause alone, and its remedy."""
    shown: bool = False
    """Whether an instance, a template or its counters show it too, for as long as it lasts."""


Event = Annotated[
    Reset
    | InstanceChanged
    | InstanceDeleted
    | TemplateChanged
    | TemplateDeleted
    | FanOutChanged
    | Statistics
    | Activity,
    Field(discriminator="type"),
]
