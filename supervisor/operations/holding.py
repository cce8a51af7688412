"""Who holds an instance: one verb at a time for each."""

import contextlib
from collections.abc import AsyncIterator, Iterator

from supervisor.concurrency import progress
from supervisor.concurrency.keyed_lock import KeyedLock
from supervisor.errors import NotFoundError
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import Verb
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord


class Holding:
    """Instances in the hands of verbs; what is done to one is shown on it meanwhile."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._locks = KeyedLock()

    @contextlib.asynccontextmanager
    async def hold(self, reference: str, verb: str) -> AsyncIterator[InstanceRecord]:
        """Hold one instance for a verb, by which it is shown; waits for the one that holds it now.

        NotFoundError where there is no such instance.
        """
        instance_id = self._inventory.resolve(reference).id
        async with self._locks.hold(instance_id):
            record = self._inventory.instances.get(instance_id)
            if record is None:
                raise NotFoundError(f"{reference}: deleted while {verb} waited for it")
            with self._in_progress(instance_id, verb):
                yield record

    @contextlib.asynccontextmanager
    async def hold_new(self, instance_id: str, verb: Verb) -> AsyncIterator[None]:
        """Hold an instance that is about to be made: nobody else gets it before it is what it is to become."""
        async with self._locks.hold(instance_id):
            with self._in_progress(instance_id, verb):
                yield

    @contextlib.asynccontextmanager
    async def hold_quietly(self, instance_id: str) -> AsyncIterator[InstanceRecord | None]:
        """Hold an instance for what nobody asked for and nobody is shown; None where it is gone."""
        async with self._locks.hold(instance_id):
            yield self._inventory.instances.get(instance_id)

    def check(self, verb: Verb, record: InstanceRecord) -> None:
        """Raise InvalidStateError unless the verb is allowed now."""
        lifecycle.check(verb, record.name, record.state, self._inventory.forest.holder_names(record.id))

    @contextlib.contextmanager
    def _in_progress(self, instance_id: str, verb: str) -> Iterator[None]:
        with progress.operation(verb) as operation, self._inventory.publisher.showing(instance_id, operation):
            yield
