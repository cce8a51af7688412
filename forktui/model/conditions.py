"""What is wrong with an instance, a page server or the host, by what is told of each. Pure."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Final, NamedTuple

from supervisor.models import HostStatistics, Instance, InstanceStatistics, State, Template

LOW_SHARE: Final = 0.05
"""Of the host's memory or disk: with less left it is low."""
LOW_BYTES: Final = 4 << 30
"""With more left it is not low, however large the host is."""
ENOUGH: Final = 1.25
"""Times as much as what is low has to be there, before it is not low any more."""


class Kind(StrEnum):
    """What is wrong, the worst first."""

    CORRUPT = "corrupt"
    """A guest has read a wrong byte."""
    ASIDE = "set aside"
    """A record is none, and nothing is done by it."""
    LAYER = "layer"
    """A file of memory is not what was noted of it."""
    PAGES = "pages"
    """Pages of a guest could not be provided."""
    STUCK = "stuck"
    """A guest waits for a page."""
    PAGER = "pager"
    """A page server is dead, and forks that run need it."""
    DIED = "died"
    """A VMM ended although nobody had asked for that."""
    ERROR = "error"
    """Something else of an instance is out of order."""
    MEMORY = "memory"
    DISK = "disk"
    REFUSED = "refused"
    """The host had no room for what somebody asked for."""
    TOLD = "alarm"
    """Whatever else the supervisor calls an alarm."""


SEVERITY: Final[Mapping[Kind, int]] = {kind: place for place, kind in enumerate(Kind)}
OF_INSTANCES: Final = (Kind.CORRUPT, Kind.ASIDE, Kind.PAGES, Kind.STUCK, Kind.DIED, Kind.ERROR)
"""The kinds that an instance and its counters show."""


PAST: Final[Mapping[Kind, str]] = {
    Kind.PAGES: "pages that its guest needed could not be provided",
    Kind.STUCK: "its guest waited for a page",
    Kind.PAGER: "its page server was dead, and forks that ran waited where they needed a page",
    Kind.MEMORY: "the host was low on memory",
    Kind.DISK: "the disk of the data directory was nearly full",
}
"""What is said of those that are over; of the others what was said before."""


BY_ITS_GUEST: Final = frozenset({"panic", "triple_fault", "reset"})
"""Deaths of which the message says by itself who died."""


class Amount(NamedTuple):
    """How much there is of something on the host, and how much of it is left, in bytes."""

    total: int
    left: int

    def is_low(self, before: bool) -> bool:
        """Whether too little is left; `before` tells whether that was so, so that it does not come and go."""
        bound = min(self.total * LOW_SHARE, LOW_BYTES) * (ENOUGH if before else 1)
        return self.total > 0 and self.left < bound


def is_suspicious(instance: Instance, counters: InstanceStatistics | None) -> bool:
    """Whether anything may be wrong with an instance: what is asked at every event."""
    if instance.died or instance.state_error is not None:
        return True
    return counters is not None and (
        counters.stalled == "stuck"
        or counters.copy_errors > 0
        or (counters.guest is not None and counters.guest.corrupt is not None)
    )


def of_instance(instance: Instance, counters: InstanceStatistics | None) -> dict[Kind, str]:
    """What is wrong with an instance, each in one line that names no instance."""
    found: dict[Kind, str] = {}
    if instance.died:
        why = instance.exit_message or "nobody knows how"
        found[Kind.DIED] = why if instance.exit_reason in BY_ITS_GUEST else f"its VMM died: {why}"
    if instance.state_error is not None:
        found[Kind.ASIDE if instance.state is State.UNKNOWN else Kind.ERROR] = instance.state_error
    if counters is None:
        return found
    if counters.guest is not None and counters.guest.corrupt is not None:
        found[Kind.CORRUPT] = f"its guest has found its memory to be wrong: {counters.guest.corrupt}"
    if instance.vmm_pid is not None:
        if counters.stalled == "stuck":
            found[Kind.STUCK] = "its guest waits for a page, and nobody answers"
        if counters.copy_errors:
            found[Kind.PAGES] = "pages that its guest needs could not be provided"
    return found


def waits_for_pager(template: Template, forks: Iterable[Instance]) -> bool:
    """Whether a fork that runs needs the template's page server, and there is none."""
    return template.page_server_pid is None and any(
        fork.vmm_pid is not None and fork.memory_backend == "uffd" and fork.template_id == template.id for fork in forks
    )


def amounts(host: HostStatistics) -> Mapping[Kind, Amount]:
    """What of the host may be low."""
    return {
        Kind.MEMORY: Amount(host.memory_total_bytes, host.memory_available_bytes),
        Kind.DISK: Amount(host.disk_total_bytes, host.disk_available_bytes),
    }
