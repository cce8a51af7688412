"""Admission: reads what a fan-out needs and what there is, and keeps what is promised to fan-outs under way."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, NamedTuple, Self, get_args

from supervisor.errors import MachineFileError
from supervisor.images.machine_files import copied_bytes
from supervisor.models import FanOutEstimate, ForkKind, MemoryBackend, ResourceName
from supervisor.rules import capacity
from supervisor.rules.capacity import PrivateMemory, Resource, Sibling
from supervisor.rules.fork_plan import ForkPlan
from supervisor.runtime.huge_page_pool import HugePagePool
from supervisor.store.inventory import Inventory
from supervisor.store.records import InstanceRecord, TemplateRecord
from supervisor.system import headroom
from supervisor.system.cgroups import Group
from supervisor.system.processes import age_of
from supervisor.system.sparse_files import allocated, shares_blocks

BACKENDS: Final[tuple[MemoryBackend, ...]] = get_args(MemoryBackend)


class Family(NamedTuple):
    """The running forks of one kind of an instance, and the template of those that share its memory."""

    source: InstanceRecord
    template: TemplateRecord | None
    siblings: list[Sibling]

    def filling_in(self, group: Group | None) -> Self:
        """Return it with those of its young forks alone that fill a cgroup; all of them fill the host."""
        if group is None:
            return self
        inside = headroom.inside(group, (one.pid for one in self.siblings if one.young))
        return self._replace(siblings=[one for one in self.siblings if not one.young or one.pid in inside])


class Promise:
    """The shares of the forks that one fan-out has yet to make."""

    def __init__(self, estimate: FanOutEstimate, promised: Counter[ResourceName]) -> None:
        self.estimate = estimate
        self._shares = Counter({row.name: row.per_fork for row in estimate.resources})
        self._promised = promised
        self._left = estimate.count
        for _ in range(estimate.count):
            promised.update(self._shares)

    def fulfil(self) -> None:
        """One fork is made, or has failed: the host tells what it has taken, and its age that more may come."""
        self._left -= 1
        self._promised.subtract(self._shares)

    def close(self) -> None:
        """Give up the rest."""
        while self._left:
            self.fulfil()


class Admission:
    """Estimates fan-outs; `private_bytes` is the private memory of an instance's VMM."""

    def __init__(self, inventory: Inventory, huge_pages: HugePagePool, private_bytes: Callable[[str], int]) -> None:
        self._inventory = inventory
        self._huge_pages = huge_pages
        self._private_bytes = private_bytes
        self._promised: Counter[ResourceName] = Counter()
        self._one_at_a_time = asyncio.Lock()

    async def estimate(self, source: InstanceRecord, plan: ForkPlan, count: int) -> FanOutEstimate:
        """Return what `count` forks take and how many fit beside those that are being made.

        Raises MachineFileError where a file of the source is gone.
        """
        template = self._inventory.template_of(source.id) if plan.shares_memory else None
        family = Family(source, template, self._siblings(source.id, plan.kind, plan.backend))
        others = self._others(source.id, plan.backend if plan.shares_memory else None)
        huge_pages = await self._huge_pages.left(source.huge_pages * count) if source.huge_pages else None
        try:
            resources = await asyncio.to_thread(self._resources, plan, family, others, huge_pages, self._vmms(source))
            copied = await asyncio.to_thread(self._copied, source)
        except FileNotFoundError as error:
            raise MachineFileError(
                f"{source.name}: its forks cannot be estimated: {error.filename} is gone; put it back"
            ) from error
        return capacity.estimate(count, resources, copied)

    @contextlib.asynccontextmanager
    async def admit(self, source: InstanceRecord, plan: ForkPlan, count: int, *, force: bool) -> AsyncIterator[Promise]:
        """Set aside what `count` forks take, until each is made.

        Raises InsufficientResourcesError where they do not fit, unless `force` is given, and what `estimate` raises.
        """
        # One after the other: each is estimated beside what those before it are promised.
        async with self._one_at_a_time:
            found = await self.estimate(source, plan, count)
            if not force:
                capacity.check(source.name, found)
            promise = Promise(found, self._promised)
        try:
            yield promise
        finally:
            promise.close()

    def _siblings(self, source_id: str, kind: ForkKind, backend: MemoryBackend) -> list[Sibling]:
        """Return the running forks of an instance that are of one kind."""
        members = [self._inventory.instances[i] for i in self._inventory.forest.children.get(source_id, ())]
        return [
            Sibling(self._private_bytes(one.id), age_of(one.process.start_time), one.process.pid)
            for one in members
            if one.process is not None and one.fork_kind == kind and one.memory_backend == backend
        ]

    def _vmms(self, source: InstanceRecord) -> list[int]:
        """Return the VMMs of an instance and of all that was forked from it."""
        members = [self._inventory.instances[i] for i in self._inventory.forest.children.get(source.id, ())]
        return [one.process.pid for one in (source, *members) if one.process is not None]

    def _others(self, source_id: str, backend: MemoryBackend | None) -> list[Family]:
        """Return the forks of every template, but for those of this source with this backend."""
        return [
            Family(source, template, siblings)
            for template in self._inventory.templates.values()
            if (source := self._inventory.instances.get(template.instance_id)) is not None
            for other in BACKENDS
            if (source.id, other) != (source_id, backend)
            if (siblings := self._siblings(source.id, "share_memory", other))
        ]

    def _resources(
        self, plan: ForkPlan, family: Family, others: list[Family], huge_pages: int | None, vmms: list[int]
    ) -> list[Resource]:
        source, template = family.source, family.template
        directory = self._inventory.layout.instance(source.id)
        copied = self._copied(source)
        disk = headroom.disk(self._inventory.layout.data_dir)
        if disk.amount is not None and plan.needs_one_file and source.snapshot and len(source.snapshot.layers) > 1:
            # Once for all of them, and beside its layers: others may have names of those.
            disk = disk._replace(amount=disk.amount - _data_bytes(directory, source))
        basis = "a record, logs and copies of its disks" if copied else "a record and logs"
        found = [self._resource("disk", capacity.FORK_DISK_BYTES + copied, disk, basis)]
        if not plan.runs:
            return found
        found.insert(0, self._memory(family, others, vmms))
        if huge_pages is not None:
            pool = headroom.Left(huge_pages, "free in the pool of 2 MiB pages and promised to nobody")
            found.append(self._resource("huge_pages", source.huge_pages, pool, "all that the guest may touch"))
        tasks = capacity.VMM_TASKS[source.hypervisor] + source.vcpus
        descriptors = headroom.descriptors(os.getpid())
        found.append(self._resource("descriptors", capacity.SUPERVISOR_DESCRIPTORS, descriptors, "in the supervisor"))
        if plan.backend == "uffd":
            server = headroom.descriptors(template.page_server.pid if template and template.page_server else None)
            share = capacity.PAGE_SERVER_DESCRIPTORS
            found.append(self._resource("page_server_descriptors", share, server, "in the page server"))
        found.append(self._resource("processes", tasks, headroom.processes(vmms), "threads of a VMM"))
        return found

    def _copied(self, source: InstanceRecord) -> int:
        """Return the bytes of disks that are copied for a fork. Raises FileNotFoundError where one is gone."""
        layout = self._inventory.layout
        found = copied_bytes(layout.instance(source.id))
        return found if found and not shares_blocks(layout.instances) else 0

    def _memory(self, family: Family, others: list[Family], vmms: list[int]) -> Resource:
        # The pool of huge pages is no part of what MemAvailable tells, and has shares of its own for its guests.
        filling = [one for one in (family, *others) if not one.source.huge_pages]
        left = headroom.least(*(_without(one, self._to_fill(filling, one.group)) for one in headroom.memory(vmms)))
        if family.source.huge_pages:
            vmm_bytes = capacity.VMM_BYTES[family.source.hypervisor]
            return self._resource("memory", vmm_bytes, left, "a VMM; the guest has huge pages")
        private = self._private_memory(family)
        return self._resource("memory", private.per_fork, left, private.basis)

    def _to_fill(self, families: list[Family], group: Group | None) -> int:
        return sum(self._private_memory(one.filling_in(group)).to_fill for one in families)

    def _private_memory(self, family: Family) -> PrivateMemory:
        source, template = family.source, family.template
        vmm_bytes = capacity.VMM_BYTES[source.hypervisor]
        hot_bytes = template.recorded_pages * template.page_size if template else 0
        data_bytes = _data_bytes(self._inventory.layout.instance(source.id), source)
        return capacity.private_memory(family.siblings, hot_bytes, data_bytes, source.size_bytes, vmm_bytes)

    def _resource(self, name: ResourceName, per_fork: int, left: headroom.Left, basis: str) -> Resource:
        free = None if left.amount is None else left.amount - self._promised[name]
        return Resource(name, per_fork, free, f"{basis}; {left.limit}" if left.limit else basis)


def _without(left: headroom.Left, to_fill: int) -> headroom.Left:
    """Return what is left once the running forks have taken what they are yet to take."""
    if left.amount is None or not to_fill:
        return left
    kept = f"{left.limit} less {to_fill / capacity.MIB:.0f} MiB that young forks are yet to fill"
    return headroom.Left(left.amount - to_fill, kept, left.group)


def _data_bytes(directory: Path, source: InstanceRecord) -> int:
    """Return how many bytes of memory an instance's snapshot holds at most; all where it has none and boots."""
    if source.snapshot is None:
        return source.size_bytes
    try:
        held = sum(allocated((directory / layer).stat()) for layer in source.snapshot.layers)
    except FileNotFoundError:
        # Nobody holds the instance here: its layers may be merged meanwhile.
        return source.size_bytes
    return min(held, source.size_bytes)
