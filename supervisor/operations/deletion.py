"""Deletion: of one instance, or of a whole tree, its forks first; and what that gives back, before it is done."""

import asyncio
import contextlib
from collections.abc import Callable
from itertools import chain

from supervisor.errors import NotFoundError, SupervisorError
from supervisor.models import Deletion, DeletionPlan
from supervisor.models.base import Report
from supervisor.operations.instances import Instances
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import Verb
from supervisor.rules.lineage import given_back
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord

CONCURRENCY = 8
"""How many instances of one generation are deleted at a time."""


class Deletions:
    """Deletes, and says what would go; `private_bytes` is the private memory of an instance's VMM."""

    def __init__(
        self,
        inventory: Inventory,
        instances: Instances,
        private_bytes: Callable[[str], int],
        report: Report,
    ) -> None:
        self._inventory = inventory
        self._instances = instances
        self._private_bytes = private_bytes
        self._report = report

    async def plan(self, reference: str, *, cascade: bool) -> DeletionPlan:
        """Return what a deletion does; refused as the deletion itself would be."""
        root = self._inventory.resolve(reference)
        forest = self._inventory.forest
        if not cascade:
            lifecycle.check(Verb.DELETE, root.name, root.state, forest.holder_names(root.id))
        ids = chain.from_iterable(forest.generations(root.id)) if cascade else [root.id]
        records = [self._inventory.instances[instance_id] for instance_id in ids]
        templates = {template.instance_id: template.id for template in self._inventory.templates.values()}
        registry = self._inventory.registry

        def freed() -> list[int]:
            return given_back(registry.links(record.id, templates.get(record.id)) for record in records)

        disk = await asyncio.to_thread(freed)
        deletions = tuple(map(self._deletion, records, disk))
        return DeletionPlan(
            deletions=deletions,
            running=sum(one.running for one in deletions),
            disk_bytes=sum(one.disk_bytes for one in deletions),
            private_bytes=sum(one.private_bytes for one in deletions),
        )

    async def delete_tree(self, reference: str) -> None:
        """Delete an instance and all below it, forks before their sources.

        Each is checked again when its turn comes: a fork that was made meanwhile stops the deletion above it, and so
        does a failure, once its generation is done. What is gone is gone, and the same call goes on with the rest.
        """
        root = self._inventory.resolve(reference)
        places = asyncio.Semaphore(CONCURRENCY)
        total = deleted = 0

        async def delete(instance_id: str) -> None:
            nonlocal deleted
            async with places:
                # Somebody else may have deleted it: that is what was wanted.
                with contextlib.suppress(NotFoundError):
                    await self._instances.delete(instance_id, childless=True)
            deleted += 1

        generations = self._inventory.forest.generations(root.id)
        total = sum(map(len, generations))
        for generation in generations:
            outcomes = await asyncio.gather(*map(delete, generation), return_exceptions=True)
            for outcome in outcomes:
                if isinstance(outcome, SupervisorError):
                    raise _stopped(root, deleted, total, outcome) from outcome
                if isinstance(outcome, BaseException):
                    raise outcome
        if total > 1:
            self._report("info", f"{root.name}: deleted with the {total - 1} instances below it", root.id)

    def _deletion(self, record: InstanceRecord, disk_bytes: int) -> Deletion:
        running = record.process is not None
        return Deletion(
            id=record.id,
            name=record.name,
            state=record.state,
            fork_kind=record.fork_kind,
            running=running,
            disk_bytes=disk_bytes,
            private_bytes=self._private_bytes(record.id) if running else 0,
        )


def _stopped(root: InstanceRecord, deleted: int, total: int, error: SupervisorError) -> SupervisorError:
    """Return the error of one step as that of the whole deletion, whose remedy is the same call once more."""
    done = f"{root.name}: cascade stopped with {deleted} of {total} instances deleted"
    return type(error)(f"{done}: {error.cause}; ask again to go on", error.details)
