"""Will so many forks fit? What one fork needs against what the host has left. Pure."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from supervisor.errors import InsufficientResourcesError
from supervisor.models import FAN_OUT_LIMIT, FanOutEstimate, HypervisorName, ResourceEstimate, ResourceName, how_many
from supervisor.remedies import Remedy

MIB = 1 << 20

VMM_BYTES: dict[HypervisorName, int] = {"firecracker": 6 * MIB, "embedded": 16 * MIB}
"""What a VMM has privately besides guest memory, page tables and KVM's structures included: measured, rounded up."""
VMM_TASKS: dict[HypervisorName, int] = {"firecracker": 3, "embedded": 3}
"""Threads of a VMM besides one for each vCPU: Firecracker's main and API threads, and KVM's for large pages."""
FORK_DISK_BYTES = 64 << 10
"""A fork's directory, record, vm.json and first lines of log; its memory's layers are links."""
SUPERVISOR_DESCRIPTORS = 5
"""Of one running fork in the supervisor: pidfd, API connection, page map, the API's socket where that is in a jail, and
one more while it is made."""
PAGE_SERVER_DESCRIPTORS = 5
"""Of one fork in its page server: userfaultfd, pidfd, connection, page map, and a listener while it is made."""
SIBLING_PERCENTILE = 0.9
"""One sibling in ten may use more: those that run longest tell what the others come to."""
FILLING_SECONDS = 60.0
"""A fork so young may not have touched, or not be seen to have touched, what it will. With a processor to itself it
has once a recording would end, after 5 s by default; the forks of a fan-out share a few processors, and telemetry comes
round to one VMM of a thousand in half a minute."""


@dataclass(frozen=True)
class Resource:
    """One thing that forks take from: what one takes, what is left (None: no end of it), and where both were read."""

    name: ResourceName
    per_fork: int
    available: int | None
    basis: str

    @property
    def fits(self) -> int | None:
        """How many forks it is enough for; None where it sets no bound."""
        if self.available is None or self.per_fork == 0:
            return None
        return max(self.available, 0) // self.per_fork


@dataclass(frozen=True)
class Sibling:
    """A running fork of the same kind: the private bytes of its VMM (0: not sampled yet), how long it runs, its pid."""

    private_bytes: int
    age_seconds: float
    pid: int = 0

    @property
    def young(self) -> bool:
        """Whether it may be yet to take what it will have."""
        return self.age_seconds < FILLING_SECONDS


@dataclass(frozen=True)
class PrivateMemory:
    """What one more fork will have, what young siblings are yet to take (both in bytes), and how that is known."""

    per_fork: int
    to_fill: int
    basis: str


def private_memory(
    siblings: Sequence[Sibling], hot_bytes: int, data_bytes: int, size_bytes: int, vmm_bytes: int
) -> PrivateMemory:
    """Return what forks will have privately: what their siblings have, once those have touched what they will.

    A young one comes to have the recorded hot pages; without those what the grown ones have, and without any all that
    the image holds. So does one that is yet to be made, or more where siblings have more.
    """
    grown = [one.private_bytes for one in siblings if not one.young and one.private_bytes]
    young = [one.private_bytes for one in siblings if one.young]
    measured = _what_forks_have(len(grown) + len(young))
    if grown and not young:
        return PrivateMemory(_usual(grown), 0, measured)
    if hot_bytes:
        expected, basis = min(hot_bytes, size_bytes) + vmm_bytes, "the recorded hot pages and a VMM"
    elif grown:
        expected, basis = _usual(grown), _what_forks_have(len(grown))
    else:
        expected, basis = min(data_bytes, size_bytes) + vmm_bytes, "all that its memory image holds and a VMM"
    if not young:
        return PrivateMemory(expected, 0, basis)
    to_fill = sum(max(expected - size, 0) for size in young)
    # One that has less is no measure: it is yet to take the rest.
    full = grown + [size for size in young if size >= expected]
    if full and _usual(full) > expected:
        return PrivateMemory(_usual(full), to_fill, measured)
    return PrivateMemory(expected, to_fill, f"{_what_forks_are_to_have(len(grown) + len(young))}: {basis}")


def _what_forks_have(number: int) -> str:
    return f"what {how_many(number, 'running fork')} {'has' if number == 1 else 'have'}"


def _what_forks_are_to_have(number: int) -> str:
    return f"what {how_many(number, 'running fork')} {'is' if number == 1 else 'are'} to have"


def _usual(sizes: Sequence[int]) -> int:
    return sorted(sizes)[math.ceil(SIBLING_PERCENTILE * len(sizes)) - 1]


def estimate(count: int, resources: Iterable[Resource], copied_bytes: int = 0) -> FanOutEstimate:
    """Return how many forks fit, what limits them, and each resource's share for `count` of them."""
    rows = list(resources)
    bounds = [(row.fits, row.name) for row in rows if row.fits is not None]
    fits, limiting = min(bounds, key=lambda bound: bound[0], default=(FAN_OUT_LIMIT, None))
    return FanOutEstimate(
        count=count,
        copied_bytes=copied_bytes,
        fits=min(fits, FAN_OUT_LIMIT),
        limiting=limiting if fits < FAN_OUT_LIMIT else None,
        resources=tuple(
            ResourceEstimate(
                name=row.name,
                per_fork=row.per_fork,
                needed=row.per_fork * count,
                available=None if row.available is None else max(row.available, 0),
                fits=row.fits,
                basis=row.basis,
            )
            for row in rows
        ),
    )


def check(name: str, found: FanOutEstimate) -> None:
    """Raise InsufficientResourcesError, with a detail for each resource that is short, where the forks do not fit."""
    if found.count <= found.fits or found.limiting is None:
        return
    short = [row for row in found.resources if row.fits is not None and row.fits < found.count]
    told = {row.name: f"{_spoken(row.name)} for {row.fits}: {_share(row)}" for row in short}
    most = f"ask for at most {found.fits}" if found.fits else "free some of it"
    raise InsufficientResourcesError(
        f"{name}: fan-out of {found.count} refused: the host has {told[found.limiting]}; {most}",
        [{"code": row.name, "message": told[row.name]} for row in short],
        remedy=Remedy.FORCE,
    )


def _share(row: ResourceEstimate) -> str:
    available = row.available or 0
    if row.name in ("memory", "disk"):
        each, rest = f"{row.per_fork / MIB:.1f} MiB", f"{available / MIB:.0f} MiB"
        missing = f"{(row.needed - available) / MIB:.0f} MiB"
    else:
        each, rest, missing = str(row.per_fork), str(available), str(row.needed - available)
    return f"each takes {each} ({row.basis}), and {rest} can be had: {missing} missing"


def _spoken(name: ResourceName) -> str:
    return name.replace("_", " ")
