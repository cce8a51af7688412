"""What the models of the wire are made of: names, choices, states."""

from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, ClassVar, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"
NAME_LENGTH = 63
FAN_OUT_LIMIT = 4096
MAX_VCPUS: Final = 32
"""MAX_SUPPORTED_VCPUS in Firecracker's src/vmm/src/vmm_config/machine_config.rs."""
MIB: Final = 1 << 20

Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=NAME_LENGTH)]
HypervisorName = Literal["firecracker", "embedded"]
HypervisorChoice = Literal["auto", "firecracker", "embedded"]
MemoryBackend = Literal["uffd", "file"]
PrefetchMode = Literal["before_resume", "concurrent", "off"]
RecordMode = Literal["auto", "on", "off"]
ForkKind = Literal["share_memory", "copy", "checkpoint"]
TargetState = Literal["Stopped", "Standby", "Running"]
ResourceName = Literal["memory", "disk", "descriptors", "page_server_descriptors", "processes", "huge_pages"]
OperationOutcome = Literal["done", "cancelled", "failed"]
OperationUnit = Literal["forks", "instances", "pages", "bytes"]
ImageKind = Literal["boot", "snapshot"]
Level = Literal["info", "warning", "alarm"]
Report = Callable[[Level, str, str | None], None]
"""Tells the log and every subscriber what has happened: how bad it is, in one line, and to which instance (its id)."""


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
