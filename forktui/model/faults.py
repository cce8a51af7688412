"""How many faults there were, when, and whose: the memory behind every rate of faults. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

FAULT_HISTORY_LIMIT: Final = 240
"""At four statistics a second, a minute of them."""


@dataclass(frozen=True, slots=True)
class FaultSample:
    """How many faults there were between the sample before and `at`, in seconds of the supervisor's boot clock."""

    at: float
    faults: int


@dataclass(frozen=True, slots=True)
class HostFaults:
    """The same of every instance of a host that had any, by its id."""

    at: float
    of: Mapping[str, int]


def fault_history(samples: Iterable[HostFaults], instance_id: str) -> list[FaultSample]:
    """The samples in which an instance had faults."""
    return [FaultSample(sample.at, sample.of[instance_id]) for sample in samples if instance_id in sample.of]


def rates_over_time(history: Iterable[FaultSample], now: float, buckets: int, seconds: float) -> list[float]:
    """Faults per second in the last `buckets` spans of `seconds`, newest last; `now` is of the samples' clock.

    The spans begin at multiples of their length, so that a sample stays in its span while `now` goes on.
    """
    rates = [0.0] * buckets
    newest = int(now // seconds)
    for sample in history:
        bucket = buckets - 1 - (newest - int(sample.at // seconds))
        # Both times are one host's, but the sample may be younger than `now`: it belongs to the newest span.
        if bucket >= 0:
            rates[min(bucket, buckets - 1)] += sample.faults / seconds
    return rates


def with_sample(samples: tuple[HostFaults, ...], at: float, of: Mapping[str, int]) -> tuple[HostFaults, ...]:
    """The samples and one more, of which statistics that came in pieces are one; a bounded number of them."""
    if not of:
        return samples
    if samples and samples[-1].at == at:
        last = dict(samples[-1].of)
        for instance_id, faults in of.items():
            last[instance_id] = last.get(instance_id, 0) + faults
        return (*samples[:-1], HostFaults(at, last))
    return (*samples[1 - FAULT_HISTORY_LIMIT :], HostFaults(at, of))
