"""The host as the client knows it: a snapshot plus events. Pure: no I/O, no clock, no Textual."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

# Tries of which a new version shares all but a path with the one before, in C: what CPython's context variables are.
from immutables import Map

from forktui.model.alarms import Alarm, Alarms
from forktui.model.bursts import Bursts
from forktui.model.change import NOTHING, Change
from forktui.model.faults import FaultSample, HostFaults, fault_history
from forktui.model.totals import Totals, portion, summed
from supervisor.models import (
    Activity,
    HostStatistics,
    Instance,
    InstanceStatistics,
    SupervisorInfo,
    Template,
)

ACTIVITY_LIMIT: Final = 500
NO_STATISTICS: Final = InstanceStatistics(id="")
_NOBODY: Final[Map[str, None]] = Map()


@dataclass(frozen=True)
class World:
    """Everything that the supervisor has told, made safe to print, and what is reckoned from it at each event."""

    supervisor: SupervisorInfo | None = None
    instances: Map[str, Instance] = field(default_factory=Map)
    templates: Map[str, Template] = field(default_factory=Map)
    statistics: Map[str, InstanceStatistics] = field(default_factory=Map)
    host: HostStatistics = field(default_factory=HostStatistics)
    activities: tuple[Activity, ...] = ()
    activity_count: int = 0
    """How many activities there ever were; `activities` holds the last of them."""
    faults: tuple[HostFaults, ...] = ()
    """The newest last; also those of instances that have gone since."""
    statistics_at: datetime | None = None
    clock: float = 0.0
    """The supervisor's boot clock at its last statistics, in seconds."""
    forks: Map[str, Map[str, None]] = field(default_factory=Map)
    """The ids of an instance's forks by the id of their source, whether or not that is there."""
    template_ids: Map[str, Map[str, None]] = field(default_factory=Map)
    """The ids of templates by the id of their instance, of which each has one as a rule."""
    sums: Totals = field(default_factory=Totals)
    """Over all instances, but for `oldest_fault_ms`."""
    waiting: Map[str, float] = field(default_factory=Map)
    """For how long an instance's oldest fault has waited, in milliseconds, where it has one."""
    bursts: Bursts = field(default_factory=Bursts)
    """The fan-outs that go on and the last ones that did; of a reset, which does not repeat them, those are kept."""
    alarms: Alarms = field(default_factory=Alarms)
    heard_at: datetime | None = None
    """The time of the last event that had one, by the supervisor's clock."""
    change: Change = field(default=NOTHING, compare=False)
    """What the last reduction has changed."""

    def statistics_of(self, instance_id: str) -> InstanceStatistics:
        """The counters of an instance; of one without a VMM only what its guest said last."""
        counters = self.statistics.get(instance_id, NO_STATISTICS)
        instance = self.instances.get(instance_id)
        if instance is None or instance.vmm_pid is not None or counters is NO_STATISTICS:
            return counters
        return InstanceStatistics(id=instance_id, guest=counters.guest)

    def template_of(self, instance: Instance) -> Template | None:
        """The template that the instance's forks attach to, where it is one."""
        ids = self.template_ids.get(instance.id)
        return None if ids is None else self.templates[min(ids)]

    def forks_of(self, instance_id: str) -> Iterable[str]:
        """The ids of the instances whose source it is, in no order."""
        return self.forks.get(instance_id, _NOBODY)

    def acknowledge(self, alarms: Iterable[Alarm] | None = None) -> "World":
        """The world after its user has looked at these alarms, or at all; its `change` is that alone."""
        after = self.alarms.acknowledge(alarms)
        shown = frozenset(i for i in {*self.alarms.marks, *after.marks} if i in self.instances)
        return replace(self, alarms=after, change=Change(shown=shown))

    def fault_history(self, instance_id: str) -> list[FaultSample]:
        """When an instance had faults, and how many."""
        return fault_history(self.faults, instance_id)


def totals(world: World, instance_ids: Iterable[str] | None = None) -> Totals:
    """The sums over the given instances, or over all."""
    if instance_ids is None:
        return replace(world.sums, oldest_fault_ms=max(world.waiting.values(), default=0.0))
    ids = list(instance_ids)
    sums = summed(portion(world.instances[i], world.statistics.get(i)) for i in ids)
    return replace(Totals(*sums), oldest_fault_ms=max((world.waiting.get(i, 0.0) for i in ids), default=0.0))
