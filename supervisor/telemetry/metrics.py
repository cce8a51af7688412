"""`GET /metrics`: the host's sums for Prometheus. No label is of one VM: a thousand forks are a thousand series."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Final

from supervisor.models import HypervisorName, State
from supervisor.runtime.page_servers import PageServers
from supervisor.store.inventory import Inventory
from supervisor.telemetry.durations import BOUNDS_SECONDS, Durations
from supervisor.telemetry.sampler import Sampler
from supervisor.uffd.page_map import LATENCY_BOUNDS_SECONDS

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

Samples = Sequence[tuple[Mapping[str, str], Sequence[int], float]]
"""Of a histogram: labels, counts by bucket, and the sum."""
PREFIX: Final = "forktui_"
_PAGE_COUNTERS: Final = (
    ("page_faults", "faults", "Page faults of guests that were answered."),
    ("residual_page_faults", "residual_faults", "Page faults of forks that came after their prefetch."),
    ("copied_bytes", "copied_bytes", "Bytes that page servers copied to guests."),
    ("prefetched_bytes", "prefetched_bytes", "Bytes of these that were prefetched."),
    ("prefetch_seconds", "prefetch_seconds", "Seconds that prefetches took."),
    ("copy_errors", "copy_errors", "Pages that could not be provided and were tried again."),
)
_PAGE_KINDS: Final = {
    "faulted": "faults",
    "fault_around": "fault_around_pages",
    "prefetched": "prefetched_pages",
    "zero": "zero_pages",
    "removed": "removed_pages",
}


class Metrics:
    """What is counted while it happens, and what is summed up when somebody asks."""

    def __init__(
        self,
        inventory: Inventory,
        page_servers: PageServers,
        telemetry: Sampler,
        version: str,
        hypervisor: HypervisorName,
        in_progress: Callable[[], Counter[str]],
    ) -> None:
        """`in_progress` has how many operations of each verb are under way."""
        self._inventory = inventory
        self._page_servers = page_servers
        self._telemetry = telemetry
        self._about = {"version": version, "hypervisor": hypervisor}
        self._in_progress = in_progress
        self._durations: dict[tuple[str, str], Durations] = {}
        self._refused: Counter[str] = Counter()
        self._started = time.time()

    def ended(self, verb: str, outcome: str, seconds: float) -> None:
        """Count an operation that has ended."""
        self._durations.setdefault((verb, outcome), Durations()).add(seconds)

    def refused(self, code: str) -> None:
        """Count a verb that was refused or failed, by the API's code."""
        self._refused[code] += 1

    async def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics and their content type, by what the request accepts."""
        families = [*self._instances(), *self._pages(), *self._operations(), *self._processes()]
        return await asyncio.to_thread(_exposition, families, accept)

    def _instances(self) -> "Iterator[Metric]":
        states = Counter(view.state for view in self._inventory.publisher.views())
        yield _gauge("build_info", "Which supervisor this is.", [(self._about, 1.0)])
        yield _gauge("instances", "Instances by state.", [({"state": state}, float(states[state])) for state in State])
        forest = self._inventory.forest
        holders = [forest.fork_count(template.instance_id) for template in self._inventory.templates.values()]
        yield _gauge("forks", "Forks that hold the memory of their sources.", [({}, float(sum(holders)))])
        yield _gauge("locked_instances", "Instances whose memory forks hold.", [({}, float(sum(map(bool, holders))))])
        yield _gauge("templates", "Instances that forks may attach to.", [({}, float(len(holders)))])

    def _pages(self) -> "Iterator[Metric]":
        sums, latencies = self._telemetry.pages.sums()
        for name, counter, help_text in _PAGE_COUNTERS:
            yield _counter(name, help_text, sums[counter])
        kinds = {kind: sums[counter] for kind, counter in _PAGE_KINDS.items()}
        yield _counters("pages", "Pages by how they came or went.", "kind", kinds)
        took = "Seconds from the reading of a page fault to its answer."
        samples: Samples = [({}, latencies, sums["fault_seconds"])]
        yield _histogram("page_fault_seconds", took, LATENCY_BOUNDS_SECONDS[:-1], samples)
        statistics = self._telemetry.statistics.values()
        oldest = max((one.oldest_fault_ms for one in statistics), default=0.0) / 1e3
        yield _gauge("oldest_page_fault_seconds", "Age of the oldest page fault without an answer.", [({}, oldest)])
        stalls = Counter(one.stalled for one in statistics if one.stalled)
        waiting = [({"how": how}, float(stalls[how])) for how in ("slow", "stuck")]
        yield _gauge("stalled_guests", "Guests that have waited long for a page.", waiting)
        restarts = "Page servers that were replaced because they died or hung."
        yield _counter("page_server_restarts", restarts, self._page_servers.restarts)

    def _operations(self) -> "Iterator[Metric]":
        took = [
            ({"verb": verb, "outcome": outcome}, tuple(one.counts), one.seconds)
            for (verb, outcome), one in sorted(self._durations.items())
        ]
        yield _histogram("operation_seconds", "Seconds that operations took.", BOUNDS_SECONDS, took)
        going_on = [({"verb": verb}, float(count)) for verb, count in sorted(self._in_progress().items())]
        yield _gauge("operations_in_progress", "Operations that are under way.", going_on)
        yield _counters("refusals", "Verbs that were refused or failed, by the API's code.", "code", self._refused)

    def _processes(self) -> "Iterator[Metric]":
        statistics, host = self._telemetry.statistics.values(), self._telemetry.host
        memory = {
            "vmm_private_memory_bytes": (
                "Memory that VMMs share with nobody.",
                sum(one.private_bytes for one in statistics),
            ),
            "vmm_shared_memory_bytes": ("Memory that VMMs share.", sum(one.shared_bytes for one in statistics)),
            "supervisor_resident_memory_bytes": ("Resident memory of the supervisor.", host.supervisor_rss_bytes),
            "page_server_resident_memory_bytes": ("Resident memory of page servers.", host.page_server_rss_bytes),
            "disk_available_bytes": ("Bytes that may be written to the data directory.", host.disk_available_bytes),
        }
        for name, (help_text, size) in memory.items():
            yield _gauge(name, help_text, [({}, float(size))])
        yield _gauge("start_time_seconds", "When the supervisor was started, since the epoch.", [({}, self._started)])


def _gauge(name: str, help_text: str, samples: Sequence[tuple[Mapping[str, str], float]]) -> "Metric":
    from prometheus_client.core import GaugeMetricFamily

    family = GaugeMetricFamily(PREFIX + name, help_text)
    for labels, value in samples:
        family.add_sample(family.name, dict(labels), value)
    return family


def _counter(name: str, help_text: str, value: float) -> "Metric":
    from prometheus_client.core import CounterMetricFamily

    return CounterMetricFamily(PREFIX + name, help_text, value=value)


def _counters(name: str, help_text: str, label: str, values: Mapping[str, float]) -> "Metric":
    from prometheus_client.core import CounterMetricFamily

    family = CounterMetricFamily(PREFIX + name, help_text, labels=(label,))
    for key, value in sorted(values.items()):
        family.add_metric((key,), value)
    return family


def _histogram(
    name: str,
    help_text: str,
    bounds: Sequence[float],
    samples: Samples,
) -> "Metric":
    """Return a histogram of counts that are not cumulative, one more than there are bounds."""
    from prometheus_client.core import HistogramMetricFamily

    names = tuple(samples[0][0]) if samples else ()
    family = HistogramMetricFamily(PREFIX + name, help_text, labels=names)
    for labels, counts, total in samples:
        seen, buckets = 0, []
        for bound, count in zip((*bounds, inf), counts, strict=True):
            seen += count
            buckets.append(("+Inf" if bound == inf else str(float(bound)), float(seen)))
        family.add_metric(tuple(labels.values()), buckets, total)
    return family


class _Collected:
    """What a registry asks for its metrics."""

    def __init__(self, families: "Sequence[Metric]") -> None:
        self._families = families

    def collect(self) -> "Iterator[Metric]":
        """Yield the families."""
        yield from self._families


def _exposition(families: "Sequence[Metric]", accept: str) -> tuple[bytes, str]:
    from prometheus_client import CollectorRegistry
    from prometheus_client.exposition import choose_encoder

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
