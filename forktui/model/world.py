"""The host as the client knows it: a snapshot plus events. Pure: no I/O, no clock, no Textual."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TypeVar

from forktui.text.safe import safe_model
from supervisor.models import (
    Activity,
    Event,
    HostSnapshot,
    HostStatistics,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    InstanceStatistics,
    Reset,
    State,
    Statistics,
    SupervisorInfo,
    Template,
    TemplateChanged,
    TemplateDeleted,
)

ACTIVITY_LIMIT = 500
FAULT_HISTORY_LIMIT = 240
"""At four statistics a second, a minute of them."""

_Value = TypeVar("_Value")

_NO_STATISTICS = InstanceStatistics(id="")


@dataclass(frozen=True, slots=True)
class FaultSample:
    """How many faults an instance had between the sample before and `at`, in seconds of its supervisor's boot clock."""

    at: float
    faults: int


@dataclass(frozen=True)
class World:
    """Everything that the supervisor has told, made safe to print."""

    supervisor: SupervisorInfo | None = None
    instances: Mapping[str, Instance] = field(default_factory=dict)
    templates: Mapping[str, Template] = field(default_factory=dict)
    statistics: Mapping[str, InstanceStatistics] = field(default_factory=dict)
    host: HostStatistics = field(default_factory=HostStatistics)
    activities: tuple[Activity, ...] = ()
    activity_count: int = 0
    """How many activities there ever were; `activities` holds the last of them."""
    fault_history: Mapping[str, tuple[FaultSample, ...]] = field(default_factory=dict)
    statistics_at: datetime | None = None

    def statistics_of(self, instance_id: str) -> InstanceStatistics:
        """The counters of an instance; of one without a VMM only what its guest said last."""
        counters = self.statistics.get(instance_id, _NO_STATISTICS)
        instance = self.instances.get(instance_id)
        if instance is None or instance.vmm_pid is not None or counters is _NO_STATISTICS:
            return counters
        return InstanceStatistics(id=instance_id, guest=counters.guest)

    def template_of(self, instance: Instance) -> Template | None:
        """The template that the instance's forks attach to, where it is one."""
        return next((template for template in self.templates.values() if template.instance_id == instance.id), None)


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
    oldest_fault_ms: float = 0.0


def reduce(world: World, foreign: Event) -> World:
    """The world after the event; every string of it is made safe to print here."""
    event = safe_model(foreign)
    match event:
        case Reset():
            return _after_reset(world, event.snapshot)
        case InstanceChanged():
            return replace(world, instances={**world.instances, event.instance.id: event.instance})
        case InstanceDeleted():
            return replace(
                world,
                instances=_without(world.instances, event.id),
                statistics=_without(world.statistics, event.id),
                fault_history=_without(world.fault_history, event.id),
            )
        case TemplateChanged():
            return replace(world, templates={**world.templates, event.template.id: event.template})
        case TemplateDeleted():
            return replace(world, templates=_without(world.templates, event.id))
        case Statistics():
            return _after_statistics(world, event)
        case Activity():
            return replace(
                world,
                activities=(*world.activities[1 - ACTIVITY_LIMIT :], event),
                activity_count=world.activity_count + 1,
            )


def totals(world: World, instance_ids: Iterable[str] | None = None) -> Totals:
    """The sums over the given instances, or over all."""
    chosen = [world.instances[i] for i in (world.instances if instance_ids is None else instance_ids)]
    counters = [world.statistics_of(instance.id) for instance in chosen]
    return Totals(
        instances=len(chosen),
        running=sum(instance.state is State.RUNNING for instance in chosen),
        forks=sum(instance.fork_kind is not None for instance in chosen),
        locked=sum(instance.mem_locked for instance in chosen),
        corrupt=sum(c.guest is not None and c.guest.corrupt is not None for c in counters),
        faults=sum(c.faults for c in counters),
        prefetched_pages=sum(c.prefetched_pages for c in counters),
        residual_faults=sum(c.residual_faults for c in counters),
        private_bytes=sum(c.private_bytes for c in counters),
        shared_bytes=sum(c.shared_bytes for c in counters),
        oldest_fault_ms=max((c.oldest_fault_ms for c in counters), default=0.0),
    )


def fault_rates(history: Iterable[FaultSample], now: float, buckets: int, seconds: float) -> list[float]:
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


def _after_reset(world: World, snapshot: HostSnapshot) -> World:
    # Activities and fault rates are the client's own memory, which a snapshot does not repeat.
    instances = {instance.id: instance for instance in snapshot.instances}
    return World(
        supervisor=snapshot.supervisor,
        instances=instances,
        templates={template.id: template for template in snapshot.templates},
        statistics={counters.id: counters for counters in snapshot.statistics if counters.id in instances},
        host=snapshot.host,
        activities=world.activities,
        activity_count=world.activity_count,
        fault_history={i: history for i, history in world.fault_history.items() if i in instances},
    )


def _after_statistics(world: World, event: Statistics) -> World:
    # Statistics are sampled beside the life of an instance: the last ones of a deleted instance may come after its
    # deletion, and would stay for ever.
    known = [counters for counters in event.instances if counters.id in world.instances]
    history = dict(world.fault_history)
    for counters in known:
        before = world.statistics.get(counters.id, _NO_STATISTICS).faults
        # A restored or restarted VM counts from zero again.
        faults = counters.faults - before if counters.faults >= before else counters.faults
        if faults:
            sample = FaultSample(event.clock, faults)
            history[counters.id] = (*history.get(counters.id, ())[1 - FAULT_HISTORY_LIMIT :], sample)
    return replace(
        world,
        statistics={**world.statistics, **{counters.id: counters for counters in known}},
        host=event.host,
        fault_history=history,
        statistics_at=event.at,
    )


def _without(mapping: Mapping[str, _Value], key: str) -> dict[str, _Value]:
    return {k: v for k, v in mapping.items() if k != key}
