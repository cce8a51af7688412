"""New instances of images."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from supervisor.errors import InvalidImageError
from supervisor.images import boot_image, builtin_image, snapshot_image
from supervisor.images.catalog import ImageCatalog
from supervisor.images.machine_files import own_config
from supervisor.images.memory_size import parse_size
from supervisor.images.metadata import check_fits, check_metadata
from supervisor.images.threads import ImageThreads
from supervisor.images.vm_json import VmJson
from supervisor.models import CreateRequest, HypervisorName, State
from supervisor.models.base import MIB
from supervisor.models.readiness import on_later_load
from supervisor.operations.holding import Holding
from supervisor.operations.image_users import ImageUsers
from supervisor.operations.transitions import Transitions
from supervisor.rules.lifecycle import Verb
from supervisor.runtime.readiness_probes import check_vsock
from supervisor.runtime.vmms import Vmms
from supervisor.snapshots.layers import Layers
from supervisor.store.layout import Layout
from supervisor.store.records import InstanceRecord
from supervisor.store.registry import new_id
from supervisor.uffd.huge_pages import SMALL_PAGE_BYTES

MOST_LISTED: Final = 20
"""Images that a refusal names."""


class Creation:
    """Makes instances; where that fails nothing of one is left."""

    def __init__(
        self,
        layout: Layout,
        holding: Holding,
        transitions: Transitions,
        vmms: Vmms,
        layers: Layers,
        images: ImageCatalog,
        threads: ImageThreads,
        users: ImageUsers,
        default_hypervisor: HypervisorName,
    ) -> None:
        self._layout = layout
        self._holding = holding
        self._transitions = transitions
        self._vmms = vmms
        self._layers = layers
        self._images = images
        self._threads = threads
        self._users = users
        self._default_hypervisor = default_hypervisor

    async def create(self, request: CreateRequest) -> InstanceRecord:
        """Boot a new instance of an image, or leave one of a snapshot in Standby."""
        with self._users.using(request.image, request.name):
            image = await self._load(request.image)
            if isinstance(image, snapshot_image.SnapshotImage):
                return await self._in_standby(request, image)
            return await self._booted(request, image)

    async def _load(self, name: str) -> boot_image.BootImage | snapshot_image.SnapshotImage:
        """Return an image; UnknownImageError names those that there are."""
        try:
            return await self._threads.read_image(name, partial(snapshot_image.load, self._layout.images, name))
        except boot_image.UnknownImageError as error:
            usable = [one.name for one in await self._images.images() if one.error is None]
            raise InvalidImageError(f"{error.message}, or take one of these: {_listed(usable)}") from error

    async def _booted(self, request: CreateRequest, image: boot_image.BootImage) -> InstanceRecord:
        hypervisor = _hypervisor(request, self._default_hypervisor)
        self._vmms.hypervisor(hypervisor)
        builtin_image.check_hypervisor(image.name, hypervisor)
        machine = image.config.machine_config
        size = parse_size(request.size or f"{machine.mem_size_mib}MB")
        vcpus = request.vcpus or machine.vcpu_count
        record = self._record(request, hypervisor, size, vcpus, machine.page_size, image.config)
        populate = partial(
            boot_image.prepare,
            image,
            memory_mib=size // MIB,
            vcpus=vcpus,
            boot_args_extra=request.cmd,
            track_dirty_pages=record.track_dirty_pages,
        )
        async with self._holding.hold_new(record.id, record.name, Verb.CREATE):
            record = await self._add(record, partial(_told, request, populate))
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
        created = self._record(request, image.hypervisor, image.size_bytes, image.vcpus, page_size, image.config)
        if request.readiness is not None:
            # It is loaded first, and booted by what its image says once it was stopped.
            says = image.config.own.readiness if image.config else None
            created = created.model_copy(update={"ready_on_load": request.readiness, "ready_on_boot": says})
        standby = {"state": State.STANDBY, "memory_backend": "file", "next_layer": 1, "intent": None}
        files = snapshot_image.snapshot_files(image)
        record = created.model_copy(update={**standby, "snapshot": files, "stopped_at": created.created_at})
        place = partial(snapshot_image.place_snapshot, image, files, record.track_dirty_pages)
        async with self._holding.hold_new(record.id, record.name, Verb.CREATE):
            return await self._add(record, partial(_told, request, place))

    async def _add(self, record: InstanceRecord, populate: Callable[[Path], None]) -> InstanceRecord:
        """Write the record and the image's files: none of these where they cannot be read, or that is cancelled."""
        return await self._transitions.add(record, populate, partial(self._threads.place, record.image))

    def _record(
        self,
        request: CreateRequest,
        hypervisor: HypervisorName,
        size_bytes: int,
        vcpus: int,
        page_size: int,
        config: VmJson | None,
    ) -> InstanceRecord:
        readiness = request.readiness or (config.own.readiness if config is not None else None)
        check_vsock(request.name, readiness, config is not None and config.vsock is not None)
        check_metadata(request.name, request.metadata, config)
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
            metadata=request.metadata,
            ready_on_boot=readiness,
            ready_on_load=on_later_load(readiness),
            intent="create",
        )


def _told(request: CreateRequest, populate: Callable[[Path], None], directory: Path) -> None:
    """Put an image's files into an instance's directory; BadRequestError where its metadata has no room there."""
    populate(directory)
    check_fits(request.name, request.metadata, own_config(directory), directory)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(names[:MOST_LISTED]) + more


def _hypervisor(request: CreateRequest, otherwise: HypervisorName) -> HypervisorName:
    if request.hypervisor is None or request.hypervisor == "auto":
        return otherwise
    return request.hypervisor
