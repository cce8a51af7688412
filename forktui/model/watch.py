"""Which events begin an alarm, and which end one. Pure: each costs what it changes."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Final

from forktui.model.alarms import HOST, Alarm, Alarms, AlarmsDraft
from forktui.model.conditions import OF_INSTANCES, Kind, amounts, is_suspicious, of_instance, waits_for_pager
from forktui.text.quantities import size
from forktui.text.remedies import in_dashboard
from supervisor.models import Activity, HostStatistics, Instance, InstanceStatistics, Template

DEAD_PAGER: Final = "its page server is dead: forks that run wait where they need a page"
_TOLD: Final[Mapping[str | None, Kind]] = {"insufficient_resources": Kind.REFUSED, "layer_changed": Kind.LAYER}
"""What a told error is, by its code."""
_LOW: Final[Mapping[Kind, str]] = {
    Kind.MEMORY: "the host is low on memory: {left} of {total} left",
    Kind.DISK: "the disk of the data directory is nearly full: {left} of {total} left",
}

Name = Callable[[str], str]
"""What an instance is called, by its id."""


class Watch:
    """The alarms of a world that is being changed; `at` is the time of the last event that had one."""

    def __init__(self, alarms: Alarms, at: datetime | None) -> None:
        self.at = at
        self.draft = AlarmsDraft(alarms)
        self.earlier = False
        """Whether what is found now was so before it was heard of."""

    def instance(self, instance: Instance, counters: InstanceStatistics | None) -> None:
        """Look at an instance that is new or another, or has other counters."""
        if not is_suspicious(instance, counters) and not self.draft.concern(instance.id):
            return
        found = of_instance(instance, counters)
        for kind in OF_INSTANCES:
            what = found.get(kind)
            if what is None:
                self.draft.end(kind, instance.id, self.at)
            else:
                died = kind is Kind.DIED and instance.stopped_at is not None
                since = instance.stopped_at if died else self.at
                earlier = self.earlier and not died
                self.draft.hold(Alarm(kind, instance.id, instance.name, what, since, earlier))

    def gone(self, instance_id: str) -> None:
        """Have nothing wrong with an instance that is no more."""
        if self.draft.concern(instance_id):
            for kind in OF_INSTANCES:
                self.draft.end(kind, instance_id, self.at)

    def pager(self, template: Template, before: Template | None, name: str, forks: Iterable[Instance]) -> bool:
        """Look at a template's page server; returns whether it is another matter than it was."""
        source = template.instance_id
        held = self.draft.holds(Kind.PAGER, source)
        alarm = Alarm(Kind.PAGER, source, name, DEAD_PAGER, self.at, self.earlier)
        if template.page_server_pid is None:
            if waits_for_pager(template, forks):
                self.draft.hold(alarm)
            else:
                self.draft.end(Kind.PAGER, source, self.at)
        else:
            self.draft.end(Kind.PAGER, source, self.at)
            if before is not None and not held and _was_replaced(template, before):
                self.draft.tell(alarm)
        return held is not self.draft.holds(Kind.PAGER, source)

    def no_pager(self, source: str) -> None:
        """Have no page server be missed that an instance's template would need."""
        self.draft.end(Kind.PAGER, source, self.at)

    def host(self, host: HostStatistics) -> None:
        """Look at what the host has left."""
        for kind, amount in amounts(host).items():
            held = self.draft.holds(kind, HOST)
            low = amount.is_low(held)
            if low and not held:
                what = _LOW[kind].format(left=size(amount.left), total=size(amount.total))
                self.draft.hold(Alarm(kind, HOST, "host", what, self.at, self.earlier))
            elif held and not low:
                self.draft.end(kind, HOST, self.at)

    def activity(self, activity: Activity, name: Name) -> None:
        """Take what is told as an alarm, unless something shows it for as long as it lasts."""
        kind = _TOLD.get(activity.code, Kind.TOLD)
        if activity.shown or (activity.level != "alarm" and kind is Kind.TOLD):
            return
        concerns = activity.instance_id or HOST
        called = name(concerns) if concerns else "host"
        what = in_dashboard(activity).removeprefix(f"{called}: ")
        self.draft.tell(Alarm(kind, concerns, called, what, activity.at))


def _was_replaced(template: Template, before: Template) -> bool:
    """Whether a template has another page server than it had, without a word of that: events were missed."""
    return template.page_server_restarts > before.page_server_restarts and before.page_server_pid not in (
        None,
        template.page_server_pid,
    )
