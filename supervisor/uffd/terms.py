"""What a fork is served by: the terms that it was attached with, and what its session may ask of the page server."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from supervisor.system.loop import Loop
from supervisor.uffd.control import PageServerEvent, Policy, Prefetch
from supervisor.uffd.handshake import Mapping
from supervisor.uffd.memory_image import MemoryImage
from supervisor.uffd.sampling import Plan


class Owner(Protocol):
    """The page server around a session: what all its forks share, and what a session asks of it."""

    loop: Loop
    image: MemoryImage
    page_size: int
    """Bytes."""
    policy: Policy

    def announce(self, event: PageServerEvent) -> None:
        """Tell the supervisor."""

    def keep_recording(self, fork_id: str, touched: list[int]) -> None:
        """Add the pages, in touch order, to the template's hot-page list."""

    def keep_sample(self, held_back: int, touched: int) -> None:
        """Add what a fork wanted of the pages that were held back from it."""

    def plan(self, fork_id: str, mappings: Sequence[Mapping]) -> Plan:
        """What is to be prefetched into a new fork."""


class NewFork(NamedTuple):
    """What the page server is handed with a new fork, as descriptors that stay the caller's."""

    listener: int
    """The socket that its VMM connects to, which listens."""
    vmm: int
    """A pidfd."""
    new_map: int
    """An empty file."""


class LeftFork(NamedTuple):
    """The same with a fork that another page server has served, or was to."""

    uffd: int
    vmm: int
    pagemap: int
    smaps: int
    """Both of its VMM's /proc."""
    new_map: int
    left_map: int | None
    """The page map that was left; None where there is none."""


class Terms(NamedTuple):
    """What a fork was attached with."""

    fork_id: str
    page_map: Path
    """What errors call its page map; the file is handed over."""
    vmm_pid: int
    prefetch: Prefetch
    record: bool
    nothing_removed: bool = False
    """Whether its guest can have given no page back: then a page map that is lost is made anew for a takeover."""
