"""A host whose changes are published on an event bus, and who subscribes to it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from supervisor.host.event_bus import EventBus, Subscription
from supervisor.models import (
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

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SUPERVISOR = SupervisorInfo(
    pid=1, version="0", started_at=NOW, data_dir="/data", hypervisor="embedded", hypervisor_version="0"
)


def instance(instance_id: str, vcpus: int = 1) -> Instance:
    """Return an instance that differs from others in its id and vcpus only."""
    return Instance(
        id=instance_id,
        name=instance_id,
        image="pagewalker",
        state=State.RUNNING,
        created_at=NOW,
        hypervisor="embedded",
        size="128MB",
        vcpus=vcpus,
        has_snapshot=False,
        fork_count=0,
        mem_locked=False,
        size_bytes=128 << 20,
    )


def template(template_id: str, recorded_pages: int = 0) -> Template:
    """Return a template that differs from others in its id and recorded pages only."""
    return Template(
        id=template_id,
        instance_id="a",
        size_bytes=0,
        page_size=4096,
        fork_count=0,
        layers=1,
        recorded_pages=recorded_pages,
    )


def statistics(faults: dict[str, int], cpu: float = 0.0) -> Statistics:
    """Return statistics of some instances."""
    counters = tuple(InstanceStatistics(id=name, faults=count) for name, count in faults.items())
    return Statistics(at=NOW, instances=counters, host=HostStatistics(cpu_percent=cpu))


@dataclass
class World:
    """What is known of a host: the supervisor's own side in these tests, and the reducer of a subscriber."""

    instances: dict[str, Instance] = field(default_factory=dict)
    templates: dict[str, Template] = field(default_factory=dict)
    counters: dict[str, InstanceStatistics] = field(default_factory=dict)
    host: HostStatistics = field(default_factory=HostStatistics)

    def snapshot(self) -> HostSnapshot:
        """Return the whole of it as the wire has it."""
        return HostSnapshot(
            supervisor=SUPERVISOR,
            instances=tuple(self.instances.values()),
            templates=tuple(self.templates.values()),
            statistics=tuple(self.counters.values()),
            host=self.host,
        )

    def apply(self, event: Event) -> None:
        """Reduce one event."""
        match event:
            case Reset(snapshot=snapshot):
                self.instances = {one.id: one for one in snapshot.instances}
                self.templates = {one.id: one for one in snapshot.templates}
                self.counters = {one.id: one for one in snapshot.statistics}
                self.host = snapshot.host
            case InstanceChanged(instance=changed):
                self.instances[changed.id] = changed
            case InstanceDeleted(id=deleted):
                self.instances.pop(deleted, None)
                self.counters.pop(deleted, None)
            case TemplateChanged(template=changed):
                self.templates[changed.id] = changed
            case TemplateDeleted(id=deleted):
                self.templates.pop(deleted, None)
            case Statistics():
                self.counters.update({one.id: one for one in event.instances})
                self.host = event.host


@dataclass
class Host:
    """A host whose state changes before the event of it is published."""

    world: World
    bus: EventBus

    @classmethod
    def make(cls, ring: int = 4096, queue: int = 1024) -> "Host":
        """Return an empty host."""
        world = World()
        return cls(world, EventBus(world.snapshot, ring, queue))

    def publish(self, *events: Event) -> None:
        """Let events happen."""
        for event in events:
            self.world.apply(event)
            self.bus.publish(event)


def take(subscription: Subscription) -> tuple[str, Event] | None:
    """Return the next event if it is there; a wait for it is begun and cancelled otherwise."""
    step = subscription.__anext__()
    try:
        step.send(None)
    except StopIteration as result:
        value: tuple[str, Event] = result.value
        return value
    step.close()
    return None


def take_all(subscription: Subscription) -> list[tuple[str, Event]]:
    """Return every event that is there."""
    taken = []
    while (item := take(subscription)) is not None:
        taken.append(item)
    return taken


def kinds(items: Sequence[tuple[str, Event]]) -> list[str]:
    """Return the types of events."""
    return [event.type for _, event in items]
