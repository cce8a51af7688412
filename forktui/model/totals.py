"""Sums over instances, which grow and shrink by the portion of one. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from supervisor.models import Instance, InstanceStatistics, State

Portion = tuple[int, ...]
"""What one instance adds to each of the sums, in the order of the fields of Totals."""


@dataclass(frozen=True)
class Totals:
    """Sums over a set of instances; sizes in bytes."""

    instances: int = 0
    running: int = 0
    forks: int = 0
    locked: int = 0
    corrupt: int = 0
    faults: int = 0
    prefetched_pages: int = 0
    residual_faults: int = 0
    private_bytes: int = 0
    shared_bytes: int = 0
    walkers: int = 0
    """Those whose guest is a pagewalker, and has said something."""
    oldest_fault_ms: float = 0.0
    """The longest that any of them has waited, which is no sum."""

    @property
    def portion(self) -> Portion:
        """The sums alone."""
        return (
            self.instances,
            self.running,
            self.forks,
            self.locked,
            self.corrupt,
            self.faults,
            self.prefetched_pages,
            self.residual_faults,
            self.private_bytes,
            self.shared_bytes,
            self.walkers,
        )


NO_PORTION: Final[Portion] = Totals().portion


def portion(instance: Instance, counters: InstanceStatistics | None) -> Portion:
    """What an instance adds to the sums; `counters` are its last, which count while it has a VMM."""
    own = (1, instance.state is State.RUNNING, instance.fork_kind is not None, instance.mem_locked)
    if counters is None:
        return (*own, 0, 0, 0, 0, 0, 0, 0)
    corrupt, walks = is_corrupt(counters), counters.guest is not None
    if instance.vmm_pid is None:
        return (*own, corrupt, 0, 0, 0, 0, 0, walks)
    return (
        *own,
        corrupt,
        counters.faults,
        counters.prefetched_pages,
        counters.residual_faults,
        counters.private_bytes,
        counters.shared_bytes,
        walks,
    )


def adds_alike(before: Instance, after: Instance) -> bool:
    """Whether two records of an instance add the same to the sums, with the same counters."""
    return (
        before.state is after.state
        and before.fork_kind == after.fork_kind
        and before.mem_locked is after.mem_locked
        and (before.vmm_pid is None) is (after.vmm_pid is None)
    )


def waiting_ms(instance: Instance, counters: InstanceStatistics | None) -> float:
    """For how long the oldest fault of an instance has waited."""
    return counters.oldest_fault_ms if counters is not None and instance.vmm_pid is not None else 0.0


def is_corrupt(counters: InstanceStatistics) -> bool:
    """Whether the guest has found its memory to be wrong."""
    return counters.guest is not None and counters.guest.corrupt is not None


def summed(portions: Iterable[Portion]) -> Portion:
    """The sums of some portions."""
    return tuple(map(sum, zip(*portions, strict=True))) or NO_PORTION


def added(sums: Portion, more: Portion) -> Portion:
    """The sums with a portion more."""
    return tuple(one + other for one, other in zip(sums, more, strict=True))


def taken(sums: Portion, less: Portion) -> Portion:
    """The sums with a portion less."""
    return tuple(one - other for one, other in zip(sums, less, strict=True))
