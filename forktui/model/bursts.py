"""Fan-outs as they were seen: how many forks each has made, and when each of those took which step. Pure.

What is told of a fan-out comes as such, and what is told of its forks comes with those: one belongs to it while its own
operation is a part of it. What a fork took is kept as it was then: it may be started anew, or gone, since.
"""

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from immutables import Map

from forktui.text.quantities import percentile
from supervisor.models import FanOutProgress, HostStatistics, Instance, Operation, Phase, State

KEPT: Final = 10
"""Fan-outs that can be looked at; of those in progress all are kept."""
WAIT: Final = "wait"
"""What a fork does before it has a record: it waits for its turn at its source."""
REST: Final = "rest"
"""What is left of its time beside its phases: its record written, and read by others."""

MAKING: Final = "making"
"""What it does meanwhile, of which it is told afterwards what it was."""


@dataclass(frozen=True, slots=True)
class Member:
    """One fork of a fan-out; `ended` is None while it is made."""

    id: str
    name: str
    begun: datetime
    recorded: datetime
    step: str = ""
    phases: tuple[Phase, ...] = ()
    ended: datetime | None = None
    failed: bool = False

    def milliseconds(self, now: datetime) -> float:
        """How long it took, or takes by now."""
        return max((self.ended or now) - self.begun, timedelta(0)) / _MILLISECOND

    def steps(self, now: datetime) -> list[Phase]:
        """All of its time, in steps that follow one another."""
        whole = self.milliseconds(now)
        wait = min(max((self.recorded - self.begun) / _MILLISECOND, 0.0), whole)
        known = sum(phase.milliseconds for phase in self.phases)
        steps = [Phase(name=WAIT, milliseconds=wait), *self.phases]
        rest = whole - wait - known
        return [*steps, Phase(name=REST if self.ended else MAKING, milliseconds=rest)] if rest > 0 else steps


_LONGEST: Final = 1e12
"""Milliseconds, within what a date may be moved by."""
_MILLISECOND: Final = timedelta(milliseconds=1)


@dataclass(frozen=True)
class Burst:
    """One fan-out; sums and percentiles are of the forks that are made."""

    told: FanOutProgress
    seen: bool = True
    """Whether it was seen while it went on; of another only what is told of it is known."""
    members: Map[str, Member] = field(default_factory=Map)
    making: Map[str, None] = field(default_factory=Map)
    """The ids of those that are being made."""
    order: tuple[str, ...] = ()
    """The ids of all that were seen, as they began."""
    durations: tuple[float, ...] = ()
    """Milliseconds of each that is made, the shortest first."""
    spent: Map[str, float] = field(default_factory=Map)
    """Milliseconds of all that are made, by the step."""
    ready: tuple[float, ...] = ()
    """Milliseconds of each until its guest was ready, where that is waited for, the shortest first."""
    slowest: str | None = None
    cpu_percent: float = 0.0
    """The most that the host's processors were used while it went on."""

    @property
    def id(self) -> str:
        """Its operation's."""
        return self.told.operation.id

    @property
    def running(self) -> bool:
        """Whether it goes on, as far as anybody knows."""
        return self.told.operation.outcome is None

    @property
    def begun(self) -> datetime | None:
        """When it began, by the supervisor's wall clock."""
        return self.told.operation.since

    def percentile(self, share: float) -> float | None:
        """Milliseconds within which this share of the forks was made; None before the first."""
        if not self.durations:
            return None
        return percentile(self.durations, share)

    def ready_percentile(self, share: float) -> float | None:
        """Milliseconds within which this share of the forks was ready; None before the first."""
        return percentile(self.ready, share) if self.ready else None

    def elapsed(self, now: datetime | None) -> float:
        """Milliseconds since it began, or all that it took."""
        if not self.running or self.begun is None or now is None:
            return self.told.milliseconds
        return max((now - self.begun) / _MILLISECOND, self.told.milliseconds)

    def with_member(self, member: Member) -> "Burst":
        """The burst with a fork that is being made, or as that has become meanwhile."""
        order = self.order if member.id in self.members else (*self.order, member.id)
        members, making = self.members.set(member.id, member), self.making.set(member.id, None)
        return replace(self, members=members, making=making, order=order)

    def with_made(self, member: Member) -> "Burst":
        """The burst with a fork that is made, or has come to nothing."""
        making = self.making.delete(member.id) if member.id in self.making else self.making
        made = replace(self, members=self.members.set(member.id, member), making=making)
        if member.failed or member.ended is None:
            return made
        took = member.milliseconds(member.ended)
        place = bisect_left(self.durations, took)
        durations = (*self.durations[:place], took, *self.durations[place:])
        slowest = member.id if place == len(self.durations) else self.slowest
        spent = self.spent
        for step in member.steps(member.ended):
            spent = spent.set(step.name, spent.get(step.name, 0.0) + step.milliseconds)
        return replace(made, durations=durations, slowest=slowest, spent=spent)


@dataclass(frozen=True)
class Bursts:
    """The fan-outs that are known, the oldest first."""

    all: Map[str, Burst] = field(default_factory=Map)
    order: tuple[str, ...] = ()
    making: Map[str, str] = field(default_factory=Map)
    """The id of the fan-out of each instance that is being made."""
    waiting: Map[str, str] = field(default_factory=Map)
    """The same of each that is made, and whose guest is waited for until it is ready."""
    running: int = 0
    """How many go on."""

    @property
    def listed(self) -> list[Burst]:
        """All of them, the oldest first."""
        return [self.all[one] for one in self.order]

    def told(self, progress: FanOutProgress, *, seen: bool = True) -> "Bursts":
        """The fan-outs after one was told of."""
        burst_id = progress.operation.id
        known = self.all.get(burst_id)
        if known is None:
            order = (*self.order, burst_id)
            made = replace(self, all=self.all.set(burst_id, Burst(progress, seen)), order=order)
            return made._counted()._without_the_oldest()
        return replace(self, all=self.all.set(burst_id, replace(known, told=progress)))._counted()

    def put(self, instance: Instance) -> "Bursts":
        """The fan-outs after an instance was told of, of which it may be a part."""
        operation = instance.operation
        if operation is not None and operation.id in self.all:
            # Its source tells how far it is between two words of its own; that may be a fork of another, and be made.
            return self._advanced(operation)._ended(instance)
        burst_id = operation.part_of if operation is not None else None
        if operation is not None and burst_id is not None and burst_id in self.all:
            if operation.since is None:
                return self
            began, step = operation.since, operation.step
            member = Member(instance.id, instance.name, began, instance.created_at, step, instance.phases)
            changed = self.all[burst_id].with_member(member)
            return replace(self._with(changed), making=self.making.set(instance.id, burst_id))
        return self._ended(instance)

    def delete(self, instance_id: str) -> "Bursts":
        """The fan-outs after an instance has gone: one that was being made has come to nothing."""
        found = self._end(instance_id, None) if instance_id in self.making else self
        return replace(found, waiting=found.waiting.delete(instance_id)) if instance_id in found.waiting else found

    def count(self, host: HostStatistics) -> "Bursts":
        """The fan-outs after the host was measured."""
        if not self.running:
            return self
        found = self
        for burst in self.all.values():
            if burst.running and host.cpu_percent > burst.cpu_percent:
                found = found._with(replace(burst, cpu_percent=host.cpu_percent))
        return found

    def after_reset(self, fan_outs: Iterable[FanOutProgress], instances: Iterable[Instance]) -> "Bursts":
        """The fan-outs after a snapshot of the host with these instances.

        One that went on and is not told of any more has ended with its supervisor.
        """
        told = {one.operation.id: one for one in fan_outs}
        found = self
        for burst in self.all.values():
            if burst.running and burst.id not in told:
                operation = burst.told.operation.model_copy(update={"outcome": "failed", "cancelled": LOST})
                found = found.told(burst.told.model_copy(update={"operation": operation}))
        for one in told.values():
            found = found.told(one, seen=one.operation.outcome is None)
        known = {one.id: one for one in instances}
        for gone in {*self.making, *self.waiting} - set(known):
            found = found.delete(gone)
        for waiting in found.waiting:
            found = found._waited(known[waiting])
        return found

    def _advanced(self, operation: Operation) -> "Bursts":
        known = self.all[operation.id]
        if operation.done <= known.told.operation.done or not known.running:
            return self
        return self._with(replace(known, told=known.told.model_copy(update={"operation": operation})))

    def _ended(self, instance: Instance) -> "Bursts":
        if instance.id in self.making:
            return self._end(instance.id, instance)
        return self._waited(instance) if instance.id in self.waiting else self

    def _end(self, instance_id: str, instance: Instance | None) -> "Bursts":
        burst = self.all.get(self.making[instance_id])
        found = replace(self, making=self.making.delete(instance_id))
        if burst is None:
            return found
        member = burst.members[instance_id]
        found = found._with(burst.with_made(_made(member, instance)))
        if instance is None or instance.readiness is None:
            return found
        return replace(found, waiting=found.waiting.set(instance_id, burst.id))._waited(instance)

    def _waited(self, instance: Instance) -> "Bursts":
        """The fan-outs after a fork was told of whose guest is to be ready: it may be, or be waited for no more."""
        if instance.unready:
            return self
        burst = self.all.get(self.waiting[instance.id])
        found = replace(self, waiting=self.waiting.delete(instance.id))
        if burst is None or instance.ready_ms is None:
            return found
        member = burst.members[instance.id]
        whole = member.milliseconds(member.ended or member.begun)
        since = instance.ready_ms - sum(phase.milliseconds for phase in instance.phases)
        return found._with(replace(burst, ready=tuple(sorted((*burst.ready, whole + max(since, 0.0))))))

    def _with(self, burst: Burst) -> "Bursts":
        return replace(self, all=self.all.set(burst.id, burst))

    def _counted(self) -> "Bursts":
        return replace(self, running=sum(burst.running for burst in self.all.values()))

    def _without_the_oldest(self) -> "Bursts":
        ended = [one for one in self.order if not self.all[one].running]
        gone = set(ended[: max(len(self.order) - KEPT, 0)])
        if not gone:
            return self
        kept = Map({one: burst for one, burst in self.all.items() if one not in gone})
        return replace(self, all=kept, order=tuple(one for one in self.order if one not in gone))


LOST: Final = "its supervisor has ended"


def _made(member: Member, instance: Instance | None) -> Member:
    """A fork that is being made no more: where it runs since, else as long as its steps took."""
    if instance is None:
        return replace(member, failed=True)
    steps = timedelta(milliseconds=min(sum(phase.milliseconds for phase in instance.phases), _LONGEST))
    begun_anew = instance.state is State.RUNNING and instance.started_at is not None
    ended = instance.started_at if begun_anew else member.recorded + steps
    return replace(member, phases=instance.phases, ended=max(ended or member.recorded, member.begun), step="")
