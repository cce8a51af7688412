"""Admission: reads what a fan-out needs and what there is, and keeps what is promised to fan-outs under way."""

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from supervisor import admission, headroom, images
from supervisor.admission import Resource
from supervisor.errors import NotFoundError
from supervisor.huge_page_pool import HugePagePool
from supervisor.inventory import Inventory
from supervisor.layer_files import allocated
from supervisor.lifecycle import fork_target
from supervisor.models import FanOutEstimate, FanOutRequest, MemoryBackend, ResourceName, State
from supervisor.records import InstanceRecord, TemplateRecord


class Promise:
    """The shares of the forks that one fan-out has yet to make."""

    def __init__(self, shares: Counter[ResourceName], promised: Counter[ResourceName], count: int) -> None:
        self._shares = shares
        self._promised = promised
        self._left = count
        for _ in range(count):
            promised.update(shares)

    def kept(self) -> None:
        """One fork is made, or has failed: what it takes can now be read from the host."""
        self._left -= 1
        self._promised.subtract(self._shares)

    def close(self) -> None:
        """Give up the rest."""
        while self._left:
            self.kept()


class Admitting:
    """Estimates fan-outs; `private_bytes` is the private memory of an instance's VMM."""

    def __init__(
        self, inventory: Inventory, data_dir: Path, huge_pages: HugePagePool, private_bytes: Callable[[str], int]
    ) -> None:
        self._inventory = inventory
        self._data_dir = data_dir
        self._huge_pages = huge_pages
        self._private_bytes = private_bytes
        self._promised: Counter[ResourceName] = Counter()
        self._one_at_a_time = asyncio.Lock()

    async def estimate(self, source: InstanceRecord, request: FanOutRequest) -> FanOutEstimate:
        """Return what a fan-out takes and how many forks fit beside those that are being made.

        Raises NotFoundError where a file of the source is gone: nobody holds it here, and it may be deleted meanwhile.
        """
        template = self._inventory.template_of(source.id) if request.share_memory or request.template_id else None
        siblings = self._siblings(source, request)
        huge_pages = await self._huge_pages.left(source.huge_pages * request.count) if source.huge_pages else None
        try:
            resources = await asyncio.to_thread(self._resources, source, request, template, siblings, huge_pages)
        except FileNotFoundError as error:
            raise NotFoundError(
                f"{source.name}: its forks cannot be estimated: {error.filename} is gone; look whether it was deleted"
            ) from error
        return admission.estimate(request.count, resources)

    @contextlib.asynccontextmanager
    async def admit(self, source: InstanceRecord, request: FanOutRequest) -> AsyncIterator[Promise]:
        """Set aside what the forks of a fan-out take, until each is made.

        Raises InsufficientResourcesError where they do not fit, unless `force` is given, and what `estimate` raises.
        """
        # One after the other: each is estimated beside what those before it are promised.
        async with self._one_at_a_time:
            found = await self.estimate(source, request)
            if not request.force:
                admission.check(source.name, found)
            promise = Promise(Counter({row.name: row.per_fork for row in found.resources}), self._promised, found.count)
        try:
            yield promise
        finally:
            promise.close()

    def _siblings(self, source: InstanceRecord, request: FanOutRequest) -> list[int]:
        """Return the private bytes of the running forks that such a fork would be like."""
        backend = _backend(request)
        kind = "share_memory" if request.share_memory or request.template_id else "copy"
        members = [self._inventory.instances[i] for i in self._inventory.forest.children.get(source.id, ())]
        alike = [
            self._private_bytes(one.id)
            for one in members
            if one.process is not None and one.fork_kind == kind and one.memory_backend == backend
        ]
        return [size for size in alike if size]

    def _resources(
        self,
        source: InstanceRecord,
        request: FanOutRequest,
        template: TemplateRecord | None,
        siblings: list[int],
        huge_pages: int | None,
    ) -> list[Resource]:
        directory = self._inventory.registry.directory(source.id)
        fork_disk = admission.FORK_DISK_BYTES + images.copied_bytes(directory)
        disk = headroom.disk(self._data_dir)
        if disk.amount is not None and _flattens(source, request):
            # Once for all of them, and beside its layers: others may have names of those.
            disk = disk._replace(amount=disk.amount - _data_bytes(directory, source))
        found = [self._resource("disk", fork_disk, disk, "a record, logs and copies of its disks")]
        if fork_target(source.state, request) is not State.RUNNING:
            return found
        vmm_bytes = admission.VMM_BYTES[source.hypervisor]
        hot_bytes = template.recorded_pages * template.page_size if template else 0
        data_bytes = _data_bytes(directory, source)
        if huge_pages is not None:
            # The pool's pages are no part of what MemAvailable tells.
            memory, basis = vmm_bytes, "a VMM; the guest has huge pages"
            pool = headroom.Left(huge_pages, "free in the pool of 2 MiB pages and promised to nobody")
            found.append(self._resource("huge_pages", source.huge_pages, pool, "all that the guest may touch"))
        else:
            memory, basis = admission.private_memory(siblings, hot_bytes, data_bytes, source.size_bytes, vmm_bytes)
        tasks = admission.VMM_TASKS[source.hypervisor] + source.vcpus
        found.insert(0, self._resource("memory", memory, headroom.memory(), basis))
        descriptors = headroom.descriptors(os.getpid())
        found.append(self._resource("descriptors", admission.SUPERVISOR_DESCRIPTORS, descriptors, "in the supervisor"))
        if _backend(request) == "uffd":
            server = headroom.descriptors(template.page_server.pid if template and template.page_server else None)
            share = admission.PAGE_SERVER_DESCRIPTORS
            found.append(self._resource("page_server_descriptors", share, server, "in the page server"))
        found.append(self._resource("processes", tasks, headroom.processes(), "threads of a VMM"))
        return found

    def _resource(self, name: ResourceName, per_fork: int, left: headroom.Left, basis: str) -> Resource:
        free = None if left.amount is None else left.amount - self._promised[name]
        return Resource(name, per_fork, free, f"{basis}; {left.limit}" if left.limit else basis)


def _backend(request: FanOutRequest) -> MemoryBackend:
    return request.memory_backend if request.share_memory or request.template_id else "file"


def _flattens(source: InstanceRecord, request: FanOutRequest) -> bool:
    """Return whether the forks need their memory image in one file, and it is in several."""
    runs = fork_target(source.state, request) is State.RUNNING
    return runs and _backend(request) == "file" and source.snapshot is not None and len(source.snapshot.layers) > 1


def _data_bytes(directory: Path, source: InstanceRecord) -> int:
    """Return how many bytes of memory an instance's snapshot holds at most; all where it has none and boots."""
    if source.snapshot is None:
        return source.size_bytes
    try:
        held = sum(allocated(directory / layer) for layer in source.snapshot.layers)
    except FileNotFoundError:
        # Nobody holds the instance here: its layers may be merged meanwhile.
        return source.size_bytes
    return min(held, source.size_bytes)
