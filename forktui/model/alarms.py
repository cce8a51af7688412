"""What somebody has to look at: since when, whether its cause holds, and whether it was acknowledged. Pure.

A condition that an instance, a page server or the host shows is an alarm as long as it lasts, and after that until it
is acknowledged; what is told once is one until then. Acknowledging is this client's own: no supervisor hears of it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import chain, islice
from typing import Final

from immutables import Map

from forktui.model.conditions import PAST, SEVERITY, Kind

OVER_LIMIT: Final = 200
"""Of alarms whose cause has gone, or that were told once; the oldest go. Of others there are as many as causes."""
HOST: Final = ""
"""Whom an alarm concerns that concerns no instance."""


@dataclass(frozen=True)
class Alarm:
    """One thing that is wrong, or was, with one instance or the host."""

    kind: Kind
    concerns: str
    """An instance's id, or HOST."""
    name: str
    """What that was called."""
    what: str
    since: datetime | None
    """By the clock of the event that told of it; None where no event had a time yet."""
    earlier: bool = False
    """Whether it was so already when it was first heard of."""
    holds: bool = True
    until: datetime | None = None
    """When its cause went."""
    acknowledged: bool = False
    times: int = 1
    number: int = 0
    """Its place in the order in which they were raised."""

    @property
    def same(self) -> tuple[Kind, str, str]:
        """What two alarms have alike that are one which came again."""
        lasting = self.kind not in (Kind.TOLD, Kind.REFUSED, Kind.LAYER)
        return (self.kind, self.concerns, "" if lasting else self.what)


ByKind = Map[Kind, Map[str, Alarm]]
_NO_KINDS: Final[tuple[Kind, ...]] = ()
_NONE: Final[Map[str, Alarm]] = Map()


@dataclass(frozen=True)
class Alarms:
    """All alarms that hold, and those of the others that nobody has acknowledged."""

    open: ByKind = field(default_factory=Map)
    """Those that hold and are not acknowledged, by kind and by whom they concern."""
    known: ByKind = field(default_factory=Map)
    """Those that hold and are."""
    over: tuple[Alarm, ...] = ()
    """Those whose cause has gone, none of them acknowledged, the newest last."""
    marks: Map[str, tuple[Kind, ...]] = field(default_factory=Map)
    """What there is about whom, the worst first, by the ids of instances."""
    count: int = 0
    """How many were ever raised."""

    def holds(self, kind: Kind, concerns: str) -> bool:
        """Whether the cause of such an alarm is there."""
        return concerns in self.open.get(kind, _NONE) or concerns in self.known.get(kind, _NONE)

    def holding(self, kind: Kind) -> int:
        """How many of a kind hold, acknowledged or not."""
        return len(self.open.get(kind, _NONE)) + len(self.known.get(kind, _NONE))

    @property
    def unacknowledged(self) -> int:
        """How many there are to look at."""
        return sum(map(len, self.open.values())) + len(self.over)

    def groups(self, named: int) -> list[tuple[Kind, int, list[Alarm]]]:
        """What is to look at by kind: how many, and at most `named` of them.

        What holds comes before what is over, and the worst first.
        """
        groups = []
        for kind in Kind:
            there, over = self.open.get(kind, _NONE), [one for one in reversed(self.over) if one.kind is kind]
            if there or over:
                some = list(islice(chain(there.values(), over), named))
                groups.append((kind, len(there) + len(over), some))
        return sorted(groups, key=lambda group: not group[2][0].holds)

    def listed(self, most: int) -> list[Alarm]:
        """At most so many of all, those that nobody has acknowledged first, the newest first."""
        sources = [*self.open.values(), *self.known.values()]
        found = [*self.over, *chain.from_iterable(islice(one.values(), most) for one in sources)]
        return sorted(found, key=lambda one: (one.acknowledged, not one.holds, -one.number))[:most]

    def acknowledge(self, alarms: Iterable[Alarm] | None = None) -> "Alarms":
        """Acknowledge these, or all; what does not hold is gone with that."""
        draft = AlarmsDraft(self)
        if alarms is None:
            alarms = [*self.over, *chain.from_iterable(one.values() for one in self.open.values())]
        for one in alarms:
            draft.acknowledge(one)
        return draft.finish()


class AlarmsDraft:
    """Alarms that are being changed by some events."""

    def __init__(self, alarms: Alarms) -> None:
        self._before = alarms
        self._open = alarms.open
        self._known = alarms.known
        self._over = alarms.over
        self._marks = alarms.marks
        self._count = alarms.count
        self._changed: set[str] = set()
        """Of whom the marks may be others."""

    @property
    def changed(self) -> frozenset[str]:
        """Whose alarms are others than they were."""
        return frozenset(self._changed)

    def concern(self, concerns: str) -> bool:
        """Whether there are alarms about somebody."""
        return concerns in self._marks or concerns in self._changed

    def holds(self, kind: Kind, concerns: str) -> bool:
        """Whether the cause of such an alarm is there."""
        return concerns in self._open.get(kind, _NONE) or concerns in self._known.get(kind, _NONE)

    def concerned(self) -> set[str]:
        """Everybody about whom there are alarms that hold."""
        return set(chain.from_iterable(one.keys() for one in (*self._open.values(), *self._known.values())))

    def hold(self, alarm: Alarm) -> None:
        """Have an alarm whose cause is there; one that was there already stays what it was but for its words."""
        kind, concerns = alarm.kind, alarm.concerns
        for acknowledged, kinds in ((False, self._open), (True, self._known)):
            there = kinds.get(kind, _NONE).get(concerns)
            if there is not None:
                if there.what != alarm.what:
                    self._put(replace(there, what=alarm.what), acknowledged)
                return
        self._put(self._again(alarm), acknowledged=False)

    def end(self, kind: Kind, concerns: str, at: datetime | None) -> None:
        """Have the cause of an alarm gone; no effect where there is none."""
        if (ended := self._take(self._open, kind, concerns)) is not None:
            self._open = ended[0]
            self._append(replace(ended[1], what=PAST.get(kind, ended[1].what), holds=False, until=at))
        elif (ended := self._take(self._known, kind, concerns)) is not None:
            self._known = ended[0]
            self._changed.add(concerns)

    def tell(self, alarm: Alarm) -> None:
        """Have an alarm of what has happened and is over."""
        what = PAST.get(alarm.kind, alarm.what)
        self._append(self._again(replace(alarm, what=what, holds=False, until=alarm.since)))

    def acknowledge(self, alarm: Alarm) -> None:
        """Have an alarm looked at; no effect where it is not to be."""
        if (taken := self._take(self._open, alarm.kind, alarm.concerns)) is not None and alarm.holds:
            self._open = taken[0]
            self._put(replace(taken[1], acknowledged=True), acknowledged=True)
        left = tuple(one for one in self._over if one.number != alarm.number)
        if len(left) < len(self._over):
            self._over = left
            self._changed.add(alarm.concerns)

    def finish(self) -> Alarms:
        """The alarms that they have become; the same object where nothing is different."""
        if not self._changed:
            return self._before
        marks = self._marks.mutate()
        for concerns in self._changed:
            kinds = self._kinds(concerns)
            if kinds:
                marks[concerns] = kinds
            else:
                marks.pop(concerns, None)
        return Alarms(self._open, self._known, self._over, marks.finish(), self._count)

    def _kinds(self, concerns: str) -> tuple[Kind, ...]:
        """What there is about somebody, the worst first."""
        holding = {kind for kind in Kind if self.holds(kind, concerns)}
        told = {one.kind for one in self._over if one.concerns == concerns}
        return tuple(sorted(holding | told, key=SEVERITY.__getitem__))

    def _again(self, alarm: Alarm) -> Alarm:
        """An alarm that is new, or came again before it was acknowledged."""
        self._count += 1
        before = [one for one in self._over if one.same == alarm.same]
        if before:
            self._over = tuple(one for one in self._over if one.same != alarm.same)
        return replace(alarm, number=self._count, times=1 + sum(one.times for one in before))

    def _append(self, alarm: Alarm) -> None:
        over = (*self._over, alarm)
        dropped, self._over = over[: max(len(over) - OVER_LIMIT, 0)], over[-OVER_LIMIT:]
        self._changed.update(one.concerns for one in dropped)
        self._changed.add(alarm.concerns)

    def _put(self, alarm: Alarm, acknowledged: bool) -> None:
        kinds = self._known if acknowledged else self._open
        kinds = kinds.set(alarm.kind, kinds.get(alarm.kind, _NONE).set(alarm.concerns, alarm))
        if acknowledged:
            self._known = kinds
        else:
            self._open = kinds
        self._changed.add(alarm.concerns)

    @staticmethod
    def _take(kinds: ByKind, kind: Kind, concerns: str) -> tuple[ByKind, Alarm] | None:
        there = kinds.get(kind, _NONE)
        alarm = there.get(concerns)
        if alarm is None:
            return None
        left = there.delete(concerns)
        return (kinds.set(kind, left) if left else kinds.delete(kind)), alarm


def worst(marks: Mapping[str, tuple[Kind, ...]], concerns: str) -> Kind | None:
    """The worst that there is about somebody."""
    return marks.get(concerns, _NO_KINDS)[0] if concerns in marks else None
