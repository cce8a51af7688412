"""Deletion: of one instance, or of a whole tree, its forks first; and what that gives back, before it is done."""

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Final

from supervisor.concurrency.progress import Operation, interruptible, step
from supervisor.errors import NotFoundError, OperationCancelledError, SupervisorError
from supervisor.models import Deletion, DeletionPlan, how_many
from supervisor.models.base import Report
from supervisor.operations.fan_out import FAN_OUT
from supervisor.operations.holding import Holding
from supervisor.operations.in_progress import InProgress
from supervisor.operations.instances import ForkedMeanwhileError, Instances
from supervisor.rules import lifecycle
from supervisor.rules.lifecycle import Verb
from supervisor.rules.lineage import given_back
from supervisor.runtime.templates import Templates
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord

CASCADE: Final = "cascade"
"""The name of a tree's deletion among the operations."""
CONCURRENCY: Final = 8
"""How many instances of one generation are deleted at a time."""


class Deletions:
    """Deletes, and says what would go; `private_bytes` is the private memory of an instance's VMM."""

    def __init__(
        self,
        inventory: Inventory,
        in_progress: InProgress,
        holding: Holding,
        templates: Templates,
        instances: Instances,
        private_bytes: Callable[[str], int],
        report: Report,
    ) -> None:
        self._inventory = inventory
        self._in_progress = in_progress
        self._holding = holding
        self._templates = templates
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
        for record in records:
            self._templates.check_forks_are_known(record)
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
        """Delete an instance and all below it, forks before their sources; fan-outs there are ended first.

        Nothing new appears there meanwhile. A failure stops it once its generation is done, and so does a cancellation.
        What is gone is gone, and the same call goes on with the rest.
        """
        root = self._inventory.resolve(reference)
        # Before anything goes: the last of it could not.
        for instance_id in (root.id, *self._inventory.forest.descendants(root.id)):
            self._templates.check_forks_are_known(self._inventory.instances[instance_id])
        with self._in_progress.begin(CASCADE, root.id, root.name) as operation, self._holding.going(root.id):
            await self._end_fan_outs(root, operation)
            while root.id in self._inventory.instances:
                generations = self._inventory.forest.generations(root.id)
                operation.total, operation.unit = operation.done + sum(map(len, generations)), "instances"
                for generation in generations:
                    if not await self._delete_generation(generation, root, operation):
                        # A fork that was being made when this began has appeared since: it goes first.
                        break
        if operation.done > 1:
            self._report(
                "info", f"{root.name}: deleted with {how_many(operation.done - 1, 'instance')} below it", root.id
            )

    async def _end_fan_outs(self, root: InstanceRecord, operation: Operation) -> None:
        step("end fan-outs")
        tree = {root.id, *self._inventory.forest.descendants(root.id)}
        making = [one for one in self._in_progress if one.verb == FAN_OUT and one.instance_id in tree]
        for one in making:
            one.cancel(f"{operation.asked_by} deletes {root.name} with all below it")
        with interruptible():
            await asyncio.gather(*(one.wait() for one in making))

    async def _delete_generation(self, generation: Sequence[str], root: InstanceRecord, operation: Operation) -> bool:
        """Delete instances of one depth, so many at a time; False where a fork of one has appeared."""
        step("delete")
        places = asyncio.Semaphore(CONCURRENCY)

        async def delete(instance_id: str) -> None:
            async with places:
                operation.check()
                # Somebody else may have deleted it: that is what was wanted.
                with contextlib.suppress(NotFoundError):
                    await self._instances.delete(instance_id, childless=True)
            operation.done += 1

        outcomes = await asyncio.gather(*map(delete, generation), return_exceptions=True)
        failures = [outcome for outcome in outcomes if isinstance(outcome, BaseException)]
        for failure in failures:
            if not isinstance(failure, SupervisorError):
                raise failure
        others = [failure for failure in failures if not isinstance(failure, ForkedMeanwhileError)]
        if others:
            assert isinstance(others[0], SupervisorError)
            raise _stopped(root, operation, others[0]) from others[0]
        return not failures

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


def _stopped(root: InstanceRecord, operation: Operation, error: SupervisorError) -> SupervisorError:
    """Return the error of one step as that of the whole deletion, whose remedy is the same call once more."""
    done = f"{root.name}: cascade stopped with {operation.done} of {how_many(operation.total or 0, 'instance')} deleted"
    cause = operation.cancelled if isinstance(error, OperationCancelledError) else error.cause
    return type(error)(f"{done}: {cause}; ask again to go on", error.details)
