"""The event bus: numbered events, a ring to resume from, and a bounded queue per subscriber."""

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

from supervisor.models import Event, HostSnapshot, InstanceDeleted, Reset, Statistics

RING: Final = 4096
"""How many events that are not statistics a subscriber may have missed and still resume."""
QUEUE: Final = 1024
"""How many events a subscriber may be behind before it is reset."""

_EVENT_ID: Final = re.compile(r"([0-9a-f]{1,32})-([0-9]{1,18})")


def merge(older: Statistics, newer: Statistics) -> Statistics:
    """Return `newer` with the counters of those instances that only `older` has."""
    if not newer.instances:
        return newer.model_copy(update={"instances": older.instances})
    instances = {counters.id: counters for counters in (*older.instances, *newer.instances)}
    return newer.model_copy(update={"instances": tuple(instances.values())})


def without(statistics: Statistics, instance_id: str) -> Statistics:
    """Return `statistics` without the counters of one instance."""
    instances = tuple(counters for counters in statistics.instances if counters.id != instance_id)
    return statistics.model_copy(update={"instances": instances})


class Backlog:
    """Numbered events in order, at most one of them statistics: the newest, with the counters of what it superseded.

    An instance's counters go with the instance: a merged event comes after the deletion, and would bring them back.
    """

    def __init__(self) -> None:
        self._changes: deque[tuple[int, Event]] = deque()
        self._statistics: tuple[int, Statistics] | None = None

    def __len__(self) -> int:
        return len(self._changes) + (self._statistics is not None)

    @property
    def changes(self) -> int:
        """How many events are not statistics."""
        return len(self._changes)

    def append(self, number: int, event: Event) -> None:
        """Add an event whose number is higher than all before it."""
        if isinstance(event, Statistics):
            self._statistics = (number, merge(self._statistics[1], event) if self._statistics else event)
            return
        if isinstance(event, InstanceDeleted) and self._statistics:
            latest, statistics = self._statistics
            self._statistics = (latest, without(statistics, event.id))
        self._changes.append((number, event))

    def pop(self) -> tuple[int, Event]:
        """Remove and return the event with the lowest number; raises IndexError where there is none."""
        if self._statistics and (not self._changes or self._statistics[0] < self._changes[0][0]):
            oldest, self._statistics = self._statistics, None
            return oldest
        return self._changes.popleft()

    def pop_change(self) -> int:
        """Forget the oldest event that is not statistics and return its number; IndexError where there is none."""
        return self._changes.popleft()[0]

    def after(self, number: int) -> "Backlog":
        """Return a new backlog of the events whose number is higher than `number`."""
        later = Backlog()
        later._changes.extend(change for change in self._changes if change[0] > number)
        if self._statistics and self._statistics[0] > number:
            later._statistics = self._statistics
        return later


class EventBus:
    """Numbers what happens on the host and hands it to every subscriber; belongs to one event loop.

    `snapshot` returns the whole host. What an event tells must be in it before the event is published, since a reset
    subscriber gets the snapshot in place of all events so far.
    """

    def __init__(self, snapshot: Callable[[], HostSnapshot], ring: int = RING, queue: int = QUEUE) -> None:
        self._snapshot = snapshot
        self._epoch = secrets.token_hex(6)
        self._number = 0
        self._ring = Backlog()
        self._ring_limit = ring
        self._forgotten = 0
        self._queue_limit = queue
        self._subscriptions: set[Subscription] = set()
        self._closed = False

    def publish(self, event: Event) -> None:
        """Give the event the next number and queue it for every subscriber; waits for none of them."""
        if self._closed:
            return
        self._number += 1
        self._ring.append(self._number, event)
        if self._ring.changes > self._ring_limit:
            self._forgotten = self._ring.pop_change()
        for subscription in self._subscriptions:
            subscription._offer(self._number, event)

    def subscribe(self, last_event_id: str | None = None) -> "Subscription":
        """Return a subscription that goes on after `last_event_id`, or starts with a Reset where it cannot.

        It takes events from the moment its context is entered.
        """
        return Subscription(self, last_event_id)

    def close(self) -> None:
        """End every subscription once it has delivered what is queued; later events go nowhere."""
        self._closed = True
        for subscription in self._subscriptions:
            subscription._wake()

    def _missed(self, last_event_id: str | None) -> Backlog | None:
        """Return what came after `last_event_id`; None where that is not known, or more than a queue holds."""
        match = _EVENT_ID.fullmatch(last_event_id or "")
        if match is None or match[1] != self._epoch:
            return None
        number = int(match[2])
        if not self._forgotten <= number <= self._number:
            return None
        missed = self._ring.after(number)
        return missed if len(missed) <= self._queue_limit else None

    def _id(self, number: int) -> str:
        return f"{self._epoch}-{number}"

    def _reset(self) -> tuple[str, Reset]:
        return self._id(self._number), Reset(snapshot=self._snapshot())


class Subscription:
    """One subscriber's events: an async context manager, and an async iterator of (event id, event) for one task."""

    def __init__(self, bus: EventBus, last_event_id: str | None) -> None:
        self._bus = bus
        self._last_event_id = last_event_id
        self._backlog: Backlog | None = None
        """None: the events are lost, and the next one is a Reset."""
        self._ready = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._backlog = self._bus._missed(self._last_event_id)
        self._bus._subscriptions.add(self)
        if self._backlog is None or len(self._backlog):
            self._ready.set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bus._subscriptions.discard(self)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[str, Event]:
        """Wait for the next event; safe to cancel: a cancelled call takes nothing."""
        while not self._bus._closed:
            await self._ready.wait()
            if self._backlog is None or len(self._backlog):
                break
            self._ready.clear()
        return self._take()

    def _take(self) -> tuple[str, Event]:
        if self._backlog is None:
            if self._bus._closed:
                raise StopAsyncIteration
            reset = self._bus._reset()
            self._backlog = Backlog()
            return reset
        if not len(self._backlog):
            raise StopAsyncIteration
        number, event = self._backlog.pop()
        return self._bus._id(number), event

    def _offer(self, number: int, event: Event) -> None:
        if self._backlog is None:
            return
        self._backlog.append(number, event)
        if len(self._backlog) > self._bus._queue_limit:
            self._backlog = None
        self._ready.set()

    def _wake(self) -> None:
        self._ready.set()
