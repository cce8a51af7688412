"""What the supervisor and a page server say to each other: policy, answers, events, and their lines of JSON.

A request is `{"id", "verb", ...}`, its answer `{"id", "result"}` or `{"id", "error"}`, an event `{"event", ...}`; one a
line (`system/control_lines.py`). Named tuples stand where the supervisor has dataclasses: importing `dataclasses` would
cost a page server a quarter of its start.
"""

import json
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeVar

from supervisor.system.control_lines import decode, encode

MOST = 1 << 63
"""Above all that is counted."""

Prefetch = Literal["before_resume", "concurrent", "off"]
FaultAround = Literal["adaptive", "fixed"]


class Policy(NamedTuple):
    """How a template's pages are served, the same for all of its forks."""

    fault_around_pages: int = 64
    """A fault is answered with the run of absent pages around it, within an aligned window of at most this many 4 KiB
    pages; 1 answers every fault with its page alone."""
    fault_around: FaultAround = "adaptive"
    """`adaptive`: the window begins with that size, is halved by faults far from each other, and grows again with those
    that follow each other; `fixed`: it always has that size."""
    record_seconds: float = 5.0
    """A recording ends at the latest this long after its first fault."""
    record_quiet_seconds: float = 0.3
    """A recording ends when no fault has come for this long."""
    record_pages: int = 262144
    """The most pages of a recording, which ends with the last of them, and of a list made of several recordings."""
    prefetch_share: float = 0.25
    """A recorded page is prefetched when at least this share of the recordings touched it."""
    sample_every: int = 8
    """One fork in this many that are prefetched is sampled: a random 0.4% of the list is held back from it, to see how
    much of that it touches, at the price of residual faults. 0: none is."""
    sample_seconds: float = 10.0
    """A sample is judged this long after the fork's prefetch, or when the fork ends before."""
    handshake_seconds: float = 10.0
    """How long a fork's VMM may take from `attach` to the end of its handshake."""


class Configuration(NamedTuple):
    """What a page server is started with, as JSON in its only argument."""

    template_id: str
    layers: tuple[str, ...]
    """The memory image's files, newest first."""
    memory_size: int
    page_size: int
    """Bytes: 4096 or 2 MiB."""
    hot_pages: str
    control: str
    policy: Policy
    uid: int = 0
    """The user that it is to be, and no other process; 0 where it is to stay the supervisor's."""
    gid: int = 0
    strictly: bool = False
    """Whether it is not to serve where it cannot be confined in every way that it is to be."""


class Attached(NamedTuple):
    """What a fork was given before it runs; zeros where nothing was prefetched or the prefetch goes on concurrently."""

    prefetched_pages: int
    prefetched_bytes: int
    prefetch_seconds: float


class Status(NamedTuple):
    """A page server as it describes itself."""

    template_id: str
    pid: int
    forks: tuple[str, ...]
    recording: tuple[str, ...]
    page_size: int
    hot_pages: int
    """Pages that a new fork is prefetched."""
    hot_runs: int
    hot_pages_refused: str
    """Why a hot-page list that is on disk is not used; empty when there is none or it is used."""
    recordings: int
    """Recordings that the list was made of."""
    held_back_pages: int
    """Pages of this list that were held back from some forks, over all of those; kept with the list."""
    held_back_touched: int
    """How many of those pages were wanted all the same."""
    handshake_seconds: float
    is_handed: bool = False
    """Whether it is handed sockets and files; page servers of earlier versions bind and make them by their paths."""
    own_uid: int = 0
    """The user that it is and no other process; 0 where it is the supervisor's."""
    landlock_abi: int = 0
    """The version of Landlock's ABI that bounds it; 0 where none does."""
    seccomp: bool = False
    """Whether its system calls are filtered."""
    lacking: tuple[str, ...] = ()
    """What it is not confined by, and why."""


class MapFile(NamedTuple):
    """Which file a fork's page map is in, wherever that lies."""

    fork_id: str
    device: int
    inode: int
    size: int


class PutBack(NamedTuple):
    """What of its files in the run directory a page server found missing."""

    control: bool
    """Whether it listens for supervisors again."""
    maps: tuple[str, ...]
    """The forks whose page maps are there again."""
    failed: tuple[str, ...]
    """What could not be put back, and why; it serves all the same, and can be asked again."""


class Recorded(NamedTuple):
    """A fork's recording has ended and is part of the template's hot-page list; what that list is now."""

    fork_id: str
    pages: int
    runs: int
    bytes: int
    recordings: int = 1


class RecordingDropped(NamedTuple):
    """A fork's recording was cut off before it could tell anything: the list is as it was, another fork may record."""

    fork_id: str
    pages: int


class Sampled(NamedTuple):
    """A fork has shown what it wanted of the pages that were held back from it; both numbers are of all such forks."""

    held_back: int
    touched: int


class Gone(NamedTuple):
    """A fork that was served is served no more."""

    fork_id: str
    reason: str


class Refused(NamedTuple):
    """A peer on the fork's socket was turned away; `served` tells whether the fork itself has failed by it."""

    fork_id: str
    reason: str


class Failing(NamedTuple):
    """A page of the fork cannot be provided now: its guest waits, never runs on a wrong page, and it is tried again."""

    fork_id: str
    reason: str


PageServerEvent = Recorded | RecordingDropped | Sampled | Gone | Refused | Failing
_EVENTS: dict[str, type[PageServerEvent]] = {
    kind.__name__: kind for kind in (Recorded, RecordingDropped, Sampled, Gone, Refused, Failing)
}


Answer = TypeVar("Answer", Attached, Status, PutBack, MapFile)


def encode_event(event: PageServerEvent) -> bytes:
    """An event's line."""
    return encode({"event": type(event).__name__, **event._asdict()})


def decode_event(message: Mapping[str, Any]) -> PageServerEvent:
    """The event of a decoded line; ValueError or TypeError when it is unknown."""
    fields = dict(message)
    kind = _EVENTS.get(str(fields.pop("event", None)))
    if kind is None:
        raise ValueError(f"unknown event {message.get('event')!r}")
    return kind(**_checked(kind, fields))


def _checked(kind: type[Any], fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, tuples of words for lists of them; ValueError where one is not of its type, or in no range at all."""
    told = dict(fields)
    for name, wanted in kind.__annotations__.items():
        if name not in told:
            continue
        value: Any = told[name]
        if wanted is int:
            good = type(value) is int and 0 <= value < MOST
        elif wanted is float:
            good = type(value) in (int, float) and 0 <= value < MOST
        elif wanted in (str, bool):
            good = type(value) is wanted
        else:
            good = isinstance(value, list) and all(isinstance(one, str) for one in value)
            told[name] = tuple(value) if good else ()
        if not good:
            raise ValueError(f"{kind.__name__}.{name} is not what it has to be")
    return told


def encode_configuration(configuration: Configuration) -> str:
    """The argument that a page server is started with."""
    return json.dumps({**configuration._asdict(), "policy": configuration.policy._asdict()})


def decode_configuration(argument: str) -> Configuration:
    """The other way; ValueError or TypeError when it is not one."""
    fields = decode(argument.encode())
    return Configuration(
        **{**fields, "layers": tuple(fields["layers"]), "policy": Policy(**fields["policy"])},
    )


def decode_answer(kind: type[Answer], fields: Any) -> Answer:
    """What a decoded answer says; ValueError or TypeError where it is no answer of this kind."""
    return kind(**_checked(kind, fields))
