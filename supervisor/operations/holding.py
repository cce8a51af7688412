"""Who holds an instance: one verb at a time for each."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Final

from supervisor.concurrency.keyed_lock import KeyedLock
from supervisor.concurrency.progress import Operation, asked_by, interruptible
from supervisor.errors import InvalidStateError, NotFoundError, SupervisorError
from supervisor.operations.in_progress import InProgress
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import Verb
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord

PATIENCE: Final = 2.0
"""Seconds that what holds an instance has left, once somebody asks for the end of that."""

ENDING: Final = frozenset({Verb.STOP, Verb.DELETE})
"""Verbs that wait for nobody: what the others make of a VM is not wanted any more."""


class Holding:
    """Instances in the hands of verbs; what is done to one is shown on it meanwhile.

    `kill` ends the VMM of an instance, which may answer nobody.
    """

    def __init__(self, inventory: Inventory, in_progress: InProgress, kill: Callable[[str], None]) -> None:
        self._inventory = inventory
        self._in_progress = in_progress
        self._kill = kill
        self._locks = KeyedLock()
        self._holders: dict[str, Operation] = {}
        self._going: Counter[str] = Counter()

    @contextlib.asynccontextmanager
    async def hold(self, reference: str, verb: str) -> AsyncIterator[InstanceRecord]:
        """Hold one instance for a verb, by which it is shown; waits for the one that holds it now.

        NotFoundError where there is no such instance, InvalidStateError where it is deleted with its tree.
        """
        found = self._inventory.resolve(reference)
        async with self._turn(found.id, verb):
            record = self._inventory.instances.get(found.id)
            if record is None:
                raise NotFoundError(f"{found.name}: deleted while {verb} waited for it")
            if isinstance(verb, Verb) and verb not in ENDING:
                self.check_stays(record, verb)
            with self._held(found.id, record.name, verb):
                yield record

    @contextlib.asynccontextmanager
    async def hold_new(self, instance_id: str, name: str, verb: Verb) -> AsyncIterator[None]:
        """Hold an instance that is about to be made: nobody else gets it before it is what it is to become."""
        async with self._locks.hold(instance_id):
            with self._held(instance_id, name, verb):
                yield

    @contextlib.asynccontextmanager
    async def hold_quietly(self, instance_id: str) -> AsyncIterator[InstanceRecord | None]:
        """Hold an instance for what nobody asked for and nobody is shown; None where it is gone."""
        async with self._locks.hold(instance_id):
            yield self._inventory.instances.get(instance_id)

    @contextlib.contextmanager
    def going(self, instance_id: str) -> Iterator[None]:
        """Let only what ends be done to an instance and to all below it: nothing new appears there meanwhile."""
        self._going[instance_id] += 1
        try:
            yield
        finally:
            self._going -= Counter([instance_id])

    def check(self, verb: Verb, record: InstanceRecord) -> None:
        """Raise InvalidStateError unless the verb is allowed now."""
        lifecycle.check(verb, record.name, record.state, self._inventory.forest.holder_names(record.id))

    def check_stays(self, record: InstanceRecord, verb: Verb) -> None:
        """Raise InvalidStateError for an instance that is being deleted with its tree."""
        if not self._going:
            return
        line = (record.id, *self._inventory.forest.ancestors(record.id))
        root = next((one for one in line if one in self._going), None)
        if root is not None:
            source = self._inventory.instances[root].name
            raise InvalidStateError(
                f"{record.name}: {verb} refused: {source} is being deleted with all below it; wait for that, "
                "or cancel it"
            )

    @contextlib.asynccontextmanager
    async def _turn(self, instance_id: str, verb: str) -> AsyncIterator[None]:
        """Hold an instance's lock; who waits for it may be cancelled, and who ends what it holds does not wait long."""
        async with contextlib.AsyncExitStack() as held:
            with interruptible(), self._impatience(instance_id, verb):
                await held.enter_async_context(self._locks.hold(instance_id))
            yield

    @contextlib.contextmanager
    def _impatience(self, instance_id: str, verb: str) -> Iterator[None]:
        """Cancel whoever holds an instance, one after the other, once they have had their time."""
        if verb not in ENDING:
            yield
            return
        loop, why = asyncio.get_running_loop(), f"{asked_by.get()} asked for {verb} meanwhile"
        timers: list[asyncio.TimerHandle] = []

        def wait() -> None:
            timers[:] = [loop.call_later(PATIENCE, end)]

        def end() -> None:
            self._end_holder(instance_id, Verb(verb), why)
            wait()

        wait()
        try:
            yield
        finally:
            timers[0].cancel()

    def _end_holder(self, instance_id: str, verb: Verb, why: str) -> None:
        holder, record = self._holders.get(instance_id), self._inventory.instances.get(instance_id)
        if holder is None or record is None:
            return
        # What is being brought to run has nothing to stop yet, and is not to have.
        if record.intent is None or verb is not Verb.STOP:
            try:
                self.check(verb, record)
            except SupervisorError:
                # As things stand the verb would be refused, and has nothing to end.
                return
        holder.cancel(why)
        self._kill(instance_id)

    @contextlib.contextmanager
    def _held(self, instance_id: str, name: str, verb: str) -> Iterator[None]:
        with self._in_progress.begin(verb, instance_id, name) as operation:
            self._holders[instance_id] = operation
            try:
                yield
            finally:
                del self._holders[instance_id]
