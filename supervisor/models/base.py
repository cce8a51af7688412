"""What the models of the wire are made of: names, choices, states."""

import re
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, ClassVar, Final, Literal, Protocol

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from supervisor.models.errors import ErrorBody

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
NAME_LENGTH = 63
ID_LENGTH: Final = 24
FAN_OUT_LIMIT = 4096
MAX_VCPUS: Final = 32
"""MAX_SUPPORTED_VCPUS in Firecracker's src/vmm/src/vmm_config/machine_config.rs."""
MOST_LOG_LINES: Final = 100_000
"""That may be asked for of a log at once."""
MIB: Final = 1 << 20

RecordedName = Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]
"""What an earlier version may have named an instance."""
HypervisorName = Literal["firecracker", "embedded"]
HypervisorChoice = Literal["auto", "firecracker", "embedded"]
JailMode = Literal["auto", "on", "off"]
MemoryBackend = Literal["uffd", "file"]
PrefetchMode = Literal["before_resume", "concurrent", "off"]
RecordMode = Literal["auto", "on", "off"]
ForkKind = Literal["share_memory", "copy", "checkpoint"]
LetGo = Literal["detached", "restored", "booted"]
"""Why a share_memory fork has become a copy, which holds no lock: it was given all of its pages, or restored from its
own standby, or booted anew after its memory was lost."""
ExitReason = Literal[
    "stopped", "panic", "reboot", "shutdown", "triple_fault", "reset", "killed", "out_of_memory", "failed", "exited",
    "unknown",
]  # fmt: skip
"""Why a VM ended: `stopped` on request; by its guest: `panic` to `reset`; `killed` by a signal, `out_of_memory` by the
kernel's; its VMM `failed`, or `exited` in order; or nobody knows."""
Stalled = Literal["slow", "stuck"]
"""Of a guest that has waited long for a page: its page server is yet to come to it, or nobody answers."""
GuestSays = Literal["panic", "reboot", "halt"]
"""Which end of its own a guest's console tells of."""
TargetState = Literal["Stopped", "Standby", "Running"]
ResourceName = Literal["memory", "disk", "descriptors", "page_server_descriptors", "processes", "huge_pages"]
OperationOutcome = Literal["done", "cancelled", "failed"]
OperationUnit = Literal["forks", "instances", "pages", "bytes"]
ImageKind = Literal["boot", "snapshot"]
FaultAction = Literal["full", "refuse", "field", "warn"]
"""What is done about a known fault of Firecracker: snapshots are Full in place of Diff, what would meet it is refused,
another field is passed, or it is only said."""
Level = Literal["info", "warning", "alarm"]


class Report(Protocol):
    """Tells the log and every subscriber what has happened: how bad it is, in one line, and to which instance (its id).

    `error` is what it tells of, and `shown` is said where an instance, a template or its counters show it too, for as
    long as it lasts.
    """

    def __call__(
        self,
        level: Level,
        message: str,
        instance_id: str | None,
        /,
        *,
        error: "ErrorBody | None" = None,
        shown: bool = False,
    ) -> None: ...


def is_id(text: str) -> bool:
    """Return whether a text has the shape of an id: 24 lowercase letters and digits, the first a letter."""
    return re.fullmatch(rf"[a-z][a-z0-9]{{{ID_LENGTH - 1}}}", text) is not None


def _no_id(name: str) -> str:
    if is_id(name):
        raise ValueError(
            f"it has the shape of an id, {ID_LENGTH} letters and digits; put a dash in, or make it shorter"
        )
    return name


Name = Annotated[RecordedName, AfterValidator(_no_id)]
"""What a new instance may be named: never as another's id is written."""
NamePrefix = Annotated[Name, Field(max_length=NAME_LENGTH - 5)]
"""What many names begin with; `-<n>` has room behind it."""


class State(StrEnum):
    """hypeman's instance states; a template is a Standby instance with `mem_locked`."""

    CREATED = "Created"
    INITIALIZING = "Initializing"
    RUNNING = "Running"
    PAUSED = "Paused"
    SHUTDOWN = "Shutdown"
    STOPPED = "Stopped"
    STANDBY = "Standby"
    UNKNOWN = "Unknown"


class Wire(BaseModel):
    """The base of every model: immutable, and tolerant of fields that a newer peer adds."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Request(Wire):
    """The base of request bodies: a field that is not known may have been meant to hold the request back."""

    model_config = ConfigDict(extra="forbid")

    passed_over: ClassVar[frozenset[str]] = frozenset()
    """hypeman's fields that have no meaning here; its clients may give them."""

    @model_validator(mode="before")
    @classmethod
    def _pass_over(cls, given: object) -> object:
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if name not in cls.passed_over}
