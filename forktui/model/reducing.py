"""Events reduced to the world: an event costs what it changes. Pure: no I/O, no clock, no Textual."""

from collections.abc import Iterable, Sequence
from typing import Final

from immutables import Map, MapMutation

from forktui.model.alarms import HOST
from forktui.model.change import EVERYTHING, Change
from forktui.model.faults import with_sample
from forktui.model.totals import Portion, Totals, adds_alike, is_corrupt, portion, waiting_ms
from forktui.model.watch import Watch
from forktui.model.world import ACTIVITY_LIMIT, NO_STATISTICS, World
from forktui.text.quantities import deleted
from forktui.text.safe import safe_model
from supervisor.models import (
    Activity,
    Event,
    FanOutChanged,
    HostSnapshot,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    InstanceStatistics,
    Reset,
    Statistics,
    Template,
    TemplateChanged,
    TemplateDeleted,
)

COUNTERS_AT_ONCE: Final = 500
"""Of statistics in one piece, which is reduced in milliseconds."""

_NOBODY: Final[Map[str, None]] = Map()
_CORRUPT: Final = 4
_FAULTS: Final = 5
"""Places among the sums: behind the faults is what else is counted of pages and memory."""
_WALKERS: Final = 10


def reduce(world: World, event: Event) -> World:
    """The world after the event; every string of it is made safe to print here."""
    return reduce_all(world, (event,))


def reduce_all(world: World, events: Iterable[Event]) -> World:
    """The world after all of the events, in order; its `change` is that of all of them."""
    draft = _Draft(world)
    for foreign in events:
        event = safe_model(foreign)
        match event:
            case Statistics():
                draft.count(event)
            case InstanceChanged():
                draft.put(event.instance)
            case InstanceDeleted():
                draft.delete(event.id)
            case TemplateChanged():
                draft.put_template(event.template)
            case TemplateDeleted():
                draft.delete_template(event.id)
            case FanOutChanged():
                draft.bursts = draft.bursts.told(event.fan_out)
            case Activity():
                draft.tell(event)
            case Reset():
                draft = draft.after_reset(event.snapshot)
    return draft.finish()


def in_pieces(event: Event) -> Sequence[Event]:
    """Events that add up to this one, of which none takes long to reduce; only a reset is left whole."""
    if not isinstance(event, Statistics) or len(event.instances) <= COUNTERS_AT_ONCE:
        return (event,)
    return [
        event.model_copy(update={"instances": event.instances[begin : begin + COUNTERS_AT_ONCE]})
        for begin in range(0, len(event.instances), COUNTERS_AT_ONCE)
    ]


class _Draft:
    """A world that is being changed by some events; nobody else sees it before it is finished."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._instances = world.instances.mutate()
        self._statistics = world.statistics.mutate()
        self._templates = world.templates.mutate()
        self._template_ids = world.template_ids.mutate()
        self._forks = world.forks.mutate()
        self._waiting = world.waiting.mutate()
        self._sums: list[int] = list(world.sums.portion)
        self._supervisor = world.supervisor
        self._host = world.host
        self._faults = world.faults
        self._statistics_at = world.statistics_at
        self._clock = world.clock
        self._watch = Watch(world.alarms, world.heard_at)
        self.activities: list[Activity] = []
        self.bursts = world.bursts
        self._counted: set[str] = set()
        self._shown: set[str] = set()
        self._moved: set[str] = set()
        self._everything = False

    def put(self, instance: Instance) -> None:
        """Add an instance, or replace it by what it has become."""
        before = self._instances.get(instance.id)
        counters = self._statistics.get(instance.id)
        if before is None:
            self._add(portion(instance, counters))
            self._take_in(instance)
        else:
            if not adds_alike(before, instance):
                self._add(portion(instance, counters))
                self._add(portion(before, counters), -1)
            if _place(before) != _place(instance):
                self._let_go(before)
                self._take_in(instance)
        self._instances[instance.id] = instance
        self.bursts = self.bursts.put(instance)
        self._wait(instance.id, waiting_ms(instance, counters))
        self._shown.add(instance.id)
        self._watch.instance(instance, counters)
        self._look_at_pager_of(instance)

    def delete(self, instance_id: str) -> None:
        """Forget an instance and its counters; no effect where there is none such."""
        instance = self._instances.pop(instance_id, None)
        if instance is not None:
            self._add(portion(instance, self._statistics.pop(instance_id, None)), -1)
            self._let_go(instance)
            self.bursts = self.bursts.delete(instance_id)
            self._wait(instance_id, 0.0)
            self._shown.add(instance_id)
            self._watch.gone(instance_id)
            self._look_at_pager_of(instance)

    def count(self, event: Statistics) -> None:
        """Replace counters by later ones."""
        self._watch.at = event.at
        faults: dict[str, int] = {}
        for counters in event.instances:
            instance = self._instances.get(counters.id)
            # Statistics are sampled beside the life of an instance: the last ones of a deleted instance may come after
            # its deletion, and would stay for ever.
            if instance is None:
                continue
            before = self._statistics.get(counters.id, NO_STATISTICS)
            self._statistics[counters.id] = counters
            self._recount(instance, before, counters)
            # A restored or restarted VM counts from zero again.
            new = counters.faults - before.faults if counters.faults >= before.faults else counters.faults
            if new:
                faults[counters.id] = faults.get(counters.id, 0) + new
            self._counted.add(counters.id)
            self._watch.instance(instance, counters)
        self._watch.host(event.host)
        self._faults = with_sample(self._faults, event.clock, faults)
        self._host, self._statistics_at, self._clock = event.host, event.at, event.clock
        self.bursts = self.bursts.count(event.host)

    def put_template(self, template: Template) -> None:
        """Add a template, or replace it."""
        before = self._forget_template(template.id)
        self._templates[template.id] = template
        _put_under(self._template_ids, template.instance_id, template.id)
        if before is None or before.page_server_pid != template.page_server_pid:
            self._look_at_pager(template, before)

    def delete_template(self, template_id: str) -> None:
        """Forget a template; no effect where there is none such."""
        template = self._forget_template(template_id)
        if template is not None:
            self._watch.no_pager(template.instance_id)

    def tell(self, activity: Activity) -> None:
        """Note what has happened."""
        self._watch.at = activity.at
        self._watch.activity(activity, self._name)
        self.activities.append(activity)

    def after_reset(self, snapshot: HostSnapshot) -> "_Draft":
        """A draft of the host that a snapshot tells of."""
        # What was told and seen before is the client's own memory, which a snapshot does not repeat.
        world = self._world
        kept = _Draft(
            World(
                activities=world.activities,
                activity_count=world.activity_count,
                faults=self._faults,
                statistics_at=self._statistics_at,
                clock=self._clock,
            )
        )
        kept.activities = self.activities
        kept.bursts = self.bursts.after_reset(snapshot.fan_outs, snapshot.instances)
        kept._supervisor, kept._host, kept._everything = snapshot.supervisor, snapshot.host, True
        for instance in snapshot.instances:
            kept.put(instance)
        for template in snapshot.templates:
            kept.put_template(template)
        for counters in snapshot.statistics:
            if (own := kept._instances.get(counters.id)) is not None:
                before = kept._statistics.get(counters.id, NO_STATISTICS)
                kept._statistics[counters.id] = counters
                kept._recount(own, before, counters)
        kept._watch = self._watch
        kept._watch_anew(snapshot, self._templates)
        return kept

    def finish(self) -> World:
        """The world that it has become."""
        world = self._world
        self._shown.update(self._watch.draft.changed - {HOST})
        change = Change(frozenset(self._counted), frozenset(self._shown), frozenset(self._moved))
        return World(
            supervisor=self._supervisor,
            instances=self._instances.finish(),
            templates=self._templates.finish(),
            statistics=self._statistics.finish(),
            host=self._host,
            activities=(*world.activities, *self.activities)[-ACTIVITY_LIMIT:] if self.activities else world.activities,
            activity_count=world.activity_count + len(self.activities),
            faults=self._faults,
            statistics_at=self._statistics_at,
            clock=self._clock,
            forks=self._forks.finish(),
            template_ids=self._template_ids.finish(),
            sums=Totals(*self._sums),
            waiting=self._waiting.finish(),
            bursts=self.bursts,
            alarms=self._watch.draft.finish(),
            heard_at=self._watch.at,
            change=EVERYTHING if self._everything else change,
        )

    def _watch_anew(self, snapshot: HostSnapshot, templates: MapMutation[str, Template]) -> None:
        """Look at all that a snapshot has; `templates` are those that were known before it."""
        watch = self._watch
        watch.at, watch.earlier = snapshot.at or watch.at, True
        for instance in snapshot.instances:
            watch.instance(instance, self._statistics.get(instance.id))
        for template in snapshot.templates:
            self._look_at_pager(template, templates.get(template.id))
        for concerned in watch.draft.concerned() - {HOST}:
            if concerned not in self._instances:
                watch.gone(concerned)
            if concerned not in self._template_ids:
                watch.no_pager(concerned)
        watch.host(snapshot.host)
        watch.earlier = False

    def _forget_template(self, template_id: str) -> Template | None:
        template = self._templates.pop(template_id, None)
        if template is not None:
            _take_from(self._template_ids, template.instance_id, template_id)
            self._shown.add(template.instance_id)
        return template

    def _look_at_pager_of(self, fork: Instance) -> None:
        """See whether forks miss their page server, after one of them has come, changed or gone."""
        for template_id in self._template_ids.get(fork.source_id or "", _NOBODY):
            template = self._templates[template_id]
            if template.page_server_pid is None:
                self._look_at_pager(template, None)

    def _look_at_pager(self, template: Template, before: Template | None) -> None:
        """See whether forks that run miss their page server; they are shown in another way then."""
        source = template.instance_id
        self._shown.add(source)
        forks = self._forks.get(source, _NOBODY)
        if self._watch.pager(template, before, self._name(source), (self._instances[one] for one in forks)):
            self._shown.update(forks)

    def _name(self, instance_id: str) -> str:
        instance = self._instances.get(instance_id)
        return instance.name if instance is not None else deleted(instance_id)

    def _add(self, more: Portion, times: int = 1) -> None:
        sums = self._sums
        for place, value in enumerate(more):
            if value:
                sums[place] += value * times

    def _recount(self, instance: Instance, before: InstanceStatistics, after: InstanceStatistics) -> None:
        """Have other counters of an instance in the sums."""
        sums = self._sums
        sums[_CORRUPT] += is_corrupt(after) - is_corrupt(before)
        sums[_WALKERS] += (after.guest is not None) - (before.guest is not None)
        if instance.vmm_pid is not None:
            # What counts of an instance that has a VMM, at a tenth of what two portions cost.
            sums[_FAULTS] += after.faults - before.faults
            sums[_FAULTS + 1] += after.prefetched_pages - before.prefetched_pages
            sums[_FAULTS + 2] += after.residual_faults - before.residual_faults
            sums[_FAULTS + 3] += after.private_bytes - before.private_bytes
            sums[_FAULTS + 4] += after.shared_bytes - before.shared_bytes
        if before.oldest_fault_ms or after.oldest_fault_ms:
            self._wait(instance.id, waiting_ms(instance, after))

    def _wait(self, instance_id: str, milliseconds: float) -> None:
        if milliseconds:
            self._waiting[instance_id] = milliseconds
        else:
            self._waiting.pop(instance_id, None)

    def _take_in(self, instance: Instance) -> None:
        """Have an instance among the forks of its source."""
        self._moved.add(instance.id)
        if instance.source_id is not None:
            _put_under(self._forks, instance.source_id, instance.id)

    def _let_go(self, instance: Instance) -> None:
        """Have an instance no longer among the forks of its source."""
        self._moved.add(instance.id)
        if instance.source_id is not None:
            _take_from(self._forks, instance.source_id, instance.id)


def _place(instance: Instance) -> tuple[object, ...]:
    """What the order of creation and the tree have of an instance."""
    return (instance.source_id, instance.number, instance.created_at)


def _put_under(index: MapMutation[str, Map[str, None]], key: str, member: str) -> None:
    index[key] = index.get(key, _NOBODY).set(member, None)


def _take_from(index: MapMutation[str, Map[str, None]], key: str, member: str) -> None:
    left = index[key].delete(member)
    if left:
        index[key] = left
    else:
        del index[key]
