"""A host that is only told of, on a socket: `python -m benchmarks.told_crowd SOCKET INSTANCES`; no VM is behind it.

It prints `ready`, and reads from standard input what is to happen from now on, a line each: `idle`; `events N`, so many
events a second of every kind; `changes N`, so many instances a second that are other, anywhere; `seen N`, the same of
the first ones; `counters N`, the counters of all instances so many times a second. It answers each line with itself.
"""

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from random import Random
from typing import Final

from aiohttp import web

from supervisor.models import (
    Activity,
    Event,
    Guest,
    HostSnapshot,
    HostStatistics,
    Instance,
    InstanceChanged,
    InstanceDeleted,
    InstanceStatistics,
    Operation,
    PageMapFold,
    Phase,
    Reset,
    State,
    Statistics,
    SupervisorInfo,
)

FAMILY: Final = 100
"""Instances of one tree: a source and its forks."""
SEEN: Final = 20
"""Instances that a terminal of 40 lines shows at first."""
TICK_SECONDS: Final = 0.01
HEARTBEAT_SECONDS: Final = 2.0
SAMPLES_A_SECOND: Final = 4
"""Of statistics, beside events of every kind."""
BEGIN: Final = datetime(2026, 1, 1, tzinfo=UTC)
HOST: Final = HostStatistics(cpu_percent=12.5, memory_total_bytes=1 << 38, memory_available_bytes=1 << 37)
MIB: Final = 1 << 20


class Crowd:
    """Instances, and what happens to them; always the same for the same number of them."""

    def __init__(self, instances: int) -> None:
        self._random = Random(instances)
        self._numbers = count()
        self.instances: dict[str, Instance] = {}
        self._counters: dict[str, InstanceStatistics] = {}
        self._made: list[str] = []
        for _ in range(instances):
            self._make(next(self._numbers))
        self._ids = list(self.instances)

    def snapshot(self) -> Reset:
        """What a client begins with."""
        supervisor = SupervisorInfo(
            pid=1,
            version="0",
            started_at=BEGIN,
            data_dir="/nowhere",
            hypervisor="embedded",
            hypervisor_version="0",
        )
        return Reset(
            snapshot=HostSnapshot(
                supervisor=supervisor,
                instances=tuple(self.instances.values()),
                templates=(),
                statistics=tuple(self._counters.values()),
                host=HOST,
            )
        )

    def all_kinds(self) -> Iterator[Event]:
        """Mostly instances that are other; of twenty events one is a new fork, one is its end, and one a line."""
        for turn in count():
            match turn % 20:
                case 0:
                    self._made.append(self._make(next(self._numbers)).id)
                    yield InstanceChanged(instance=self.instances[self._made[-1]])
                case 1 if len(self._made) > FAMILY:
                    gone = self._made.pop(0)
                    del self.instances[gone], self._counters[gone]
                    yield InstanceDeleted(id=gone)
                case 2:
                    yield Activity(at=datetime.now(UTC), level="info", message=f"event {turn} of many")
                case _:
                    yield from self._changes(self._random.choice(self._ids))

    def changes(self, among: int | None = None) -> Iterator[Event]:
        """Instances that are other, one after the other: any, or of the first ones."""
        while True:
            yield from self._changes(self._random.choice(self._ids[:among]))

    def statistics(self, instances: int | None = None) -> Statistics:
        """The counters of some instances, or of all, all of which are other."""
        chosen = self._ids if instances is None else self._random.sample(self._ids, min(instances, len(self._ids)))
        for instance_id in chosen:
            before = self._counters[instance_id]
            self._counters[instance_id] = before.model_copy(
                update={
                    "faults": before.faults + self._random.randrange(1, 9),
                    "private_bytes": before.private_bytes + MIB // 16,
                    "cpu_seconds": before.cpu_seconds + 0.01,
                }
            )
        counters = tuple(self._counters[instance_id] for instance_id in chosen)
        return Statistics(
            at=datetime.now(UTC), clock=time.clock_gettime(time.CLOCK_BOOTTIME), instances=counters, host=HOST
        )

    def _changes(self, instance_id: str) -> Iterator[Event]:
        """Something begins on an instance, or what was under way has ended."""
        before = self.instances[instance_id]
        operation = (
            None if before.operation else Operation(id=instance_id, verb="snapshot", step="write", asked_by="root")
        )
        self.instances[instance_id] = before.model_copy(update={"operation": operation})
        yield InstanceChanged(instance=self.instances[instance_id])

    def _make(self, number: int) -> Instance:
        instance_id, source = f"i{number:07}", number - number % FAMILY
        is_source = number == source
        made = Instance(
            id=instance_id,
            name=f"tree-{number // FAMILY}" if is_source else f"fork-{number}",
            image="pagewalker",
            state=State.STANDBY if is_source else State.RUNNING,
            created_at=BEGIN,
            hypervisor="embedded",
            size="128MB",
            vcpus=1,
            has_snapshot=is_source,
            fork_count=FAMILY - 1 if is_source else 0,
            mem_locked=is_source,
            locked_by=tuple(f"fork-{number + fork}" for fork in range(1, 4)) if is_source else (),
            size_bytes=128 * MIB,
            number=number,
            source_id=None if is_source else f"i{source:07}",
            fork_kind=None if is_source else "share_memory",
            memory_backend=None if is_source else "uffd",
            phases=(Phase(name="spawn", milliseconds=5), Phase(name="load", milliseconds=2)),
            vmm_pid=None if is_source else 1000 + number,
        )
        self.instances[instance_id] = made
        self._counters[instance_id] = InstanceStatistics(
            id=instance_id,
            faults=number % 50,
            present_pages=4101,
            total_pages=32768,
            prefetched_pages=4000,
            rss_bytes=24 * MIB,
            private_bytes=19 * MIB,
            shared_bytes=5 * MIB,
            guest=Guest(ready=True, restored=True, passes=3),
        )
        return made


class ToldCrowd:
    """Streams of what happens to a crowd."""

    def __init__(self, crowd: Crowd) -> None:
        self._crowd = crowd
        self._streams: list[web.StreamResponse] = []
        self._number = count()
        self._heard = time.monotonic()

    def application(self) -> web.Application:
        """What answers on the socket."""
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_get("/events", self._events)
        app.router.add_get("/instances/{id}/memory", self._memory)
        return app

    async def happen(self, what: str, rate: int) -> None:
        """Have things happen until this is cancelled."""
        events = {"events": self._crowd.all_kinds(), "seen": self._crowd.changes(SEEN)}.get(what, self._crowd.changes())
        told, sampled, began = 0, 0, time.monotonic()
        while True:
            passed = time.monotonic() - began
            due = [] if what in ("idle", "counters") else [next(events) for _ in range(int(passed * rate) - told)]
            told += len(due)
            samples = rate if what == "counters" else SAMPLES_A_SECOND if what == "events" else 0
            if int(passed * samples) > sampled:
                sampled = int(passed * samples)
                due.append(self._crowd.statistics(None if what == "counters" else FAMILY))
            await self._tell(due)
            await asyncio.sleep(TICK_SECONDS)

    async def _tell(self, events: Sequence[Event]) -> None:
        """Write each event as it is; a stream that was left is forgotten."""
        now = time.monotonic()
        frames = [_frame(next(self._number), event) for event in events]
        if not frames and now >= self._heard + HEARTBEAT_SECONDS:
            frames = [b": still here\n\n"]
        if frames:
            self._heard = now
        for stream in list(self._streams):
            try:
                for frame in frames:
                    await stream.write(frame)
            except ConnectionError:
                self._streams.remove(stream)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        await stream.write(_frame(next(self._number), self._crowd.snapshot()))
        self._streams.append(stream)
        # Until the client goes: nothing else ends it.
        await asyncio.Event().wait()
        return stream

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _memory(self, request: web.Request) -> web.Response:
        width = int(request.query["width"])
        cells = tuple((32768 // width, 0, 0, 1, 0) for _ in range(width))
        fold = PageMapFold(id=request.match_info["id"], page_size=4096, pages=32768, cells=cells)
        return web.json_response(text=fold.model_dump_json())


def _frame(number: int, event: Event) -> bytes:
    return f"id: {number}\nevent: {event.type}\ndata: {event.model_dump_json()}\n\n".encode()


async def run(socket: Path, instances: int) -> None:
    """Serve until standard input ends."""
    crowd = ToldCrowd(Crowd(instances))
    runner = web.AppRunner(crowd.application(), handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(socket)).start()
    print("ready", flush=True)
    happening = asyncio.create_task(crowd.happen("idle", 0))
    with contextlib.suppress(EOFError):
        while True:
            line = await asyncio.to_thread(input)
            happening.cancel()
            what, _, rate = line.partition(" ")
            happening = asyncio.create_task(crowd.happen(what, int(rate or 0)))
            print(line, flush=True)
    happening.cancel()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), int(sys.argv[2])))
