"""A fan-out as a real supervisor told it, to be told again: for pictures that must come out the same every time.

`python -m tests.harness.recorded_supervisor SOCKET` plays it on an empty supervisor that listens there and writes the
recording anew.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Self

from pydantic import TypeAdapter

from forktui.client.api import ApiError, SupervisorClient
from forktui.demo.scenario import SOURCE, play
from forktui.model.forest import descendants
from forktui.model.reducing import reduce
from forktui.model.world import World
from supervisor.models import (
    Deletion,
    DeletionPlan,
    DiskInfo,
    Event,
    FanOutEstimate,
    FanOutRequest,
    ForkRequest,
    ImageInfo,
    LayerInfo,
    MachineInfo,
    PageMapFold,
    Reset,
    ResourceEstimate,
    State,
)
from tests.harness.checkout import ROOT

RECORDING = ROOT / "tests" / "pictures" / "fan_out.json"
SOCKET = Path("/run/forktui/supervisor.sock")
DATA_DIR = "/var/lib/forktui"
CELLS = 2048
EVENT: TypeAdapter[Event] = TypeAdapter(Event)


@dataclass(frozen=True)
class Recording:
    """The events of one stream in order, its clock when it was stopped, and page maps of `CELLS` cells."""

    clock: float
    events: tuple[Event, ...]
    page_maps: dict[str, PageMapFold]

    @classmethod
    def load(cls, path: Path = RECORDING) -> Self:
        """Read a recording from its JSON file."""
        content = json.loads(path.read_text())
        return cls(
            clock=content["clock"],
            events=tuple(EVENT.validate_python(event) for event in content["events"]),
            page_maps={fold["id"]: PageMapFold.model_validate(fold) for fold in content["page_maps"]},
        )

    def save(self, path: Path = RECORDING) -> None:
        """Write the recording to its JSON file, an event a line."""
        events = [
            {"type": event.type, **EVENT.dump_python(event, mode="json", exclude_defaults=True)}
            for event in self.events
        ]
        folds = [fold.model_dump(mode="json") for fold in self.page_maps.values()]
        lines = [f'{{"clock": {self.clock},', '"events": [']
        lines += [",\n".join(json.dumps(event, separators=(",", ":")) for event in events)]
        lines += ['],\n"page_maps": [', ",\n".join(json.dumps(fold, separators=(",", ":")) for fold in folds), "]}"]
        path.write_text("\n".join(lines) + "\n")

    @property
    def world(self) -> World:
        """What the events add up to."""
        world = World()
        for event in self.events:
            world = reduce(world, event)
        return world


class RecordedSupervisor(SupervisorClient):
    """Tells events, then is silent; a page map is folded again to the width asked for."""

    def __init__(self, events: Sequence[Event], page_maps: dict[str, PageMapFold] | None = None) -> None:
        super().__init__(SOCKET)
        self._events = events
        self._page_maps = page_maps or {}

    async def events(
        self,
        last_event_id: str | None = None,
        silence: float = 0.0,
        alive: Callable[[], object] = lambda: None,
        silent: Callable[[str], object] = lambda line: None,
        gather: float = 0.0,
    ) -> AsyncGenerator[tuple[str, Event], None]:
        for number, event in enumerate(self._events):
            yield f"recorded-{number}", event
        await asyncio.Event().wait()

    async def memory(self, reference: str, width: int) -> PageMapFold:
        if reference not in self._page_maps:
            raise ApiError(404, "not_found", f"{reference}: no page map was recorded")
        return refold(self._page_maps[reference], width)

    async def machine(self, reference: str) -> MachineInfo:
        one = Recording(0, tuple(self._events), {}).world.instances[reference]
        layers = tuple(
            LayerInfo(file=f"mem.{number}", bytes=one.size_bytes, disk_bytes=18 << 20 >> number, names=3 + number)
            for number in reversed(range(one.layers))
        )
        disks = (DiskInfo(id="rootfs", file="disks/rootfs", read_only=False),)
        directory = f"{DATA_DIR}/instances/{one.id}"
        return MachineInfo(id=one.id, directory=directory, layers=layers, configured=True, disks=disks)

    async def deletion_plan(self, reference: str, *, cascade: bool = False) -> DeletionPlan:
        world = Recording(0, tuple(self._events), {}).world
        going = [*(reversed(descendants(world, reference)) if cascade else ()), reference]
        goes = [self._deletion(world, instance_id) for instance_id in going]
        return DeletionPlan(
            deletions=tuple(goes),
            running=sum(one.running for one in goes),
            disk_bytes=sum(one.disk_bytes for one in goes),
            private_bytes=sum(one.private_bytes for one in goes),
        )

    @staticmethod
    def _deletion(world: World, instance_id: str) -> Deletion:
        one = world.instances[instance_id]
        return Deletion(
            id=one.id,
            name=one.name,
            state=one.state,
            fork_kind=one.fork_kind,
            running=one.vmm_pid is not None,
            disk_bytes=one.size_bytes >> 5,
            private_bytes=world.statistics_of(one.id).private_bytes,
        )

    async def images(self) -> list[ImageInfo]:
        boot = ImageInfo(name="pagewalker", status="ready", created_at=datetime.fromtimestamp(0, UTC), kind="boot")
        alpine = boot.model_copy(update={"name": "alpine"})
        why = "images/debian/vm.json names vmlinux, which is not there; put it there"
        return [boot, alpine, boot.model_copy(update={"name": "debian", "status": "failed", "error": why})]

    async def capabilities(self) -> dict[str, object]:
        return {"runtimes": [{"name": name, "available": True} for name in ("embedded", "firecracker")]}

    async def fan_out_estimate(self, reference: str, request: FanOutRequest) -> FanOutEstimate:
        each, fits = 18 << 20, 431
        memory = ResourceEstimate(
            name="memory",
            per_fork=each,
            needed=each * request.count,
            available=each * fits,
            fits=fits,
            basis="measured",
        )
        return FanOutEstimate(count=request.count, fits=fits, limiting="memory", resources=(memory,))


def refold(fold: PageMapFold, width: int) -> PageMapFold:
    """The page map with at most `width` cells."""
    width = min(width, len(fold.cells))
    bounds = [round(cell * len(fold.cells) / width) for cell in range(width + 1)]
    cells = [fold.cells[begin:end] for begin, end in pairwise(bounds)]
    summed = tuple(tuple(sum(kind) for kind in zip(*cell, strict=True)) for cell in cells)
    return PageMapFold.model_validate({**fold.model_dump(), "cells": summed})


async def record(socket: Path) -> Recording:
    """Play the demo and a fan-out of one of its forks on the supervisor that listens on `socket`, and record it."""
    events: list[Event] = []
    world = World()
    async with SupervisorClient(socket) as client:
        playing = asyncio.create_task(_play(client))
        async for _, event in client.events():
            events.append(moved(event))
            world = reduce(world, event)
            if playing.done() and _settled(world):
                break
        ids = await playing
        folds = [await client.memory(instance_id, CELLS) for instance_id in ids]
    return Recording(time.clock_gettime(time.CLOCK_BOOTTIME), tuple(events), {fold.id: fold for fold in folds})


async def _play(client: SupervisorClient) -> list[str]:
    """Make a family of three generations, and return the ids of those whose page maps are of interest."""
    world = await play(client, 8)
    ids = {instance.name: instance.id for instance in world.instances.values()}
    await client.standby(ids["fork-3"])
    result = await client.fan_out(ids["fork-3"], FanOutRequest(count=3, target_state="Running"))
    await client.fork(ids[SOURCE], ForkRequest(name="copy", target_state="Standby"))
    await client.stop(ids["fork-8"])
    return [ids["fork-2"], *(child.instance.id for child in result.children if child.instance is not None)]


def _settled(world: World) -> bool:
    """Whether every guest that runs has verified its memory."""
    running = [instance.id for instance in world.instances.values() if instance.state is State.RUNNING]
    guests = [world.statistics_of(instance_id).guest for instance_id in running]
    return all(guest is not None and guest.passes > 0 for guest in guests)


def moved(event: Event) -> Event:
    """The event with the data directory of an installed supervisor."""
    if not isinstance(event, Reset):
        return event
    supervisor = event.snapshot.supervisor.model_copy(update={"data_dir": DATA_DIR})
    return Reset(snapshot=event.snapshot.model_copy(update={"supervisor": supervisor}))


if __name__ == "__main__":
    asyncio.run(record(Path(sys.argv[1]))).save()
