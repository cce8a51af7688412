"""New instances of images."""

import asyncio
from datetime import UTC, datetime
from functools import partial

from supervisor.images import boot_image, builtin_image, snapshot_image
from supervisor.images.memory_size import parse_size
from supervisor.models import CreateRequest, HypervisorName, State
from supervisor.models.base import MIB
from supervisor.operations.holding import Holding
from supervisor.operations.transitions import Transitions
from supervisor.rules.lifecycle import Verb
from supervisor.runtime.vmms import Vmms
from supervisor.snapshots.layers import Layers
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord
from supervisor.store.registry import new_id
from supervisor.uffd.huge_pages import SMALL_PAGE_BYTES


class Creation:
    """Makes instances; where that fails nothing of one is left."""

    def __init__(
        self,
        layout: Layout,
        holding: Holding,
        transitions: Transitions,
        vmms: Vmms,
        layers: Layers,
        default_hypervisor: HypervisorName,
    ) -> None:
        self._layout = layout
        self._holding = holding
        self._transitions = transitions
        self._vmms = vmms
        self._layers = layers
        self._default_hypervisor = default_hypervisor

    async def create(self, request: CreateRequest) -> InstanceRecord:
        """Boot a new instance of an image, or leave one of a snapshot in Standby."""
        directory = self._layout.image(request.image)
        if boot_image.is_name(request.image) and await asyncio.to_thread(snapshot_image.is_snapshot, directory):
            image = await asyncio.to_thread(snapshot_image.load_snapshot, directory)
            return await self._in_standby(request, image)
        return await self._booted(request)

    async def _booted(self, request: CreateRequest) -> InstanceRecord:
        hypervisor = _hypervisor(request, self._default_hypervisor)
        self._vmms.hypervisor(hypervisor)
        image = await asyncio.to_thread(boot_image.load_image, self._layout.images, request.image)
        builtin_image.check_hypervisor(image.name, hypervisor)
        machine = image.config.machine_config
        size = parse_size(request.size or f"{machine.mem_size_mib}MB")
        vcpus = request.vcpus or machine.vcpu_count
        record = self._record(request, hypervisor, size, vcpus, machine.page_size)
        populate = partial(
            boot_image.prepare,
            image,
            memory_mib=size // MIB,
            vcpus=vcpus,
            boot_args_extra=request.cmd,
            track_dirty_pages=record.track_dirty_pages,
        )
        async with self._holding.hold_new(record.id, record.name, Verb.CREATE):
            record = await self._transitions.add(record, populate)
            try:
                return await self._transitions.boot(record)
            except BaseException:
                await asyncio.shield(self._transitions.discard(record))
                raise

    async def _in_standby(self, request: CreateRequest, image: snapshot_image.SnapshotImage) -> InstanceRecord:
        hypervisor = self._vmms.hypervisor(_hypervisor(request, image.hypervisor))
        snapshot_image.check_snapshot(image, hypervisor)
        snapshot_image.check_request(image, request)
        page_size = image.config.machine_config.page_size if image.config else SMALL_PAGE_BYTES
        created = self._record(request, image.hypervisor, image.size_bytes, image.vcpus, page_size)
        standby = {"state": State.STANDBY, "memory_backend": "file", "next_layer": 1, "intent": None}
        files = snapshot_image.snapshot_files(image)
        record = created.model_copy(update={**standby, "snapshot": files, "stopped_at": created.created_at})
        place = partial(snapshot_image.place_snapshot, image, files, record.track_dirty_pages)
        async with self._holding.hold_new(record.id, record.name, Verb.CREATE):
            return await self._transitions.add(record, place)

    def _record(
        self, request: CreateRequest, hypervisor: HypervisorName, size_bytes: int, vcpus: int, page_size: int
    ) -> InstanceRecord:
        return InstanceRecord(
            id=new_id(),
            name=request.name,
            image=request.image,
            state=State.CREATED,
            hypervisor=hypervisor,
            size_bytes=size_bytes,
            page_size=page_size,
            vcpus=vcpus,
            created_at=datetime.now(UTC),
            track_dirty_pages=request.track_dirty_pages and self._layers.diff_layers,
            intent="create",
        )


def _hypervisor(request: CreateRequest, otherwise: HypervisorName) -> HypervisorName:
    if request.hypervisor is None or request.hypervisor == "auto":
        return otherwise
    return request.hypervisor
