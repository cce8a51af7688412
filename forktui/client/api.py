"""The async API client: every verb of the supervisor as a method, and its events as an async iterator."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import aclosing, asynccontextmanager
from typing import Final, Literal
from urllib.parse import quote

import aiohttp
from pydantic import TypeAdapter

from forktui.client.decoding import EVENT_TYPES, decode
from forktui.client.silence import ANSWER_SECONDS, ASK_SECONDS, READ, VERB, Patience
from forktui.client.transport import ApiError, SupervisorUnreachableError, Transport
from forktui.client.uploads import SentFile, parts_of
from supervisor.models import (
    AcceptRequest,
    BuildImageRequest,
    CheckpointRequest,
    CreateRequest,
    DeletionPlan,
    Event,
    FanOutEstimate,
    FanOutRequest,
    FanOutResult,
    ForkRequest,
    HostSnapshot,
    ImageInfo,
    Instance,
    Lineage,
    MachineInfo,
    MadeImage,
    Operation,
    PageMapFold,
    Reset,
    ResourceStats,
    State,
    WaitResult,
)

__all__ = ["SILENCE_SECONDS", "ApiError", "LogSource", "SupervisorClient", "SupervisorUnreachableError"]

SILENCE_SECONDS: Final = 45.0
"""How long an event stream may be silent before it is begun anew: many of the supervisor's heartbeats."""

LogSource = Literal["app", "vmm", "hypeman"]

_IMAGES: Final = TypeAdapter(list[ImageInfo])
_INSTANCES: Final = TypeAdapter(list[Instance])
_OPERATIONS: Final = TypeAdapter(list[Operation])
_CAPABILITIES: Final = TypeAdapter(dict[str, object])


class SupervisorClient(Transport):
    """A client of the supervisor on one Unix socket: an async context manager, for one event loop.

    A reference is an instance's id, name or unique id prefix. Methods raise ApiError where the supervisor refuses, and
    SupervisorUnreachableError where there is none. A verb takes as long as the supervisor needs for it.
    """

    async def health(self) -> None:
        """Return where the supervisor answers."""
        await self._call("GET", "/health")

    async def capabilities(self) -> dict[str, object]:
        """Return what the host can do, in hypeman's shape."""
        return self._understood(_CAPABILITIES.validate_json, await self._call("GET", "/capabilities"))

    async def instances(self, state: State | None = None) -> list[Instance]:
        """Return all instances, or those in one state."""
        query = {"state": state.value} if state else None
        return self._understood(_INSTANCES.validate_json, await self._call("GET", "/instances", query=query))

    async def instance(self, reference: str) -> Instance:
        """Return one instance."""
        return await self._ask(Instance, "GET", _path(reference))

    async def images(self) -> list[ImageInfo]:
        """Return every image, usable or with what is wrong with it."""
        return self._understood(_IMAGES.validate_json, await self._call("GET", "/images"))

    async def build_image(self, request: BuildImageRequest, files: Mapping[str, SentFile]) -> MadeImage:
        """Make an image of files, which are read here and sent: `kernel` and perhaps others."""
        query = {"bytes": str(max(sum(one.size for one in files.values()), 1))}
        return await self._ask(MadeImage, "POST", "/images", parts_of(request, files), query)

    async def add_image(self, name: str, directory: SentFile) -> MadeImage:
        """Make an image of a directory that is ready, sent as a tar."""
        query = {"bytes": str(max(directory.size, 1))}
        return await self._ask(MadeImage, "PUT", f"/images/{quote(name, safe='')}", directory.payload(), query)

    async def remove_image(self, name: str) -> None:
        """Remove an image that no instance was made of."""
        await self._call("DELETE", f"/images/{quote(name, safe='')}")

    async def create(self, request: CreateRequest) -> Instance:
        """Boot a new instance."""
        return await self._ask(Instance, "POST", "/instances", request)

    async def delete(self, reference: str, *, cascade: bool = False) -> None:
        """Remove an instance, whatever its state; with `cascade` the whole tree from it down."""
        await self._call("DELETE", _path(reference), query={"cascade": "true"} if cascade else None)

    async def deletion_plan(self, reference: str, *, cascade: bool = False) -> DeletionPlan:
        """Return what `delete` would do, in its order."""
        query = {"dry_run": "true", "cascade": str(cascade).lower()}
        return await self._ask(DeletionPlan, "DELETE", _path(reference), query=query, patience=READ)

    async def start(self, reference: str) -> Instance:
        """Boot a Stopped instance."""
        return await self._ask(Instance, "POST", _path(reference, "start"))

    async def stop(self, reference: str) -> Instance:
        """End a running instance's VMM; its memory is lost."""
        return await self._ask(Instance, "POST", _path(reference, "stop"))

    async def standby(self, reference: str) -> Instance:
        """Snapshot a Running instance and end its VMM."""
        return await self._ask(Instance, "POST", _path(reference, "standby"))

    async def restore(self, reference: str) -> Instance:
        """Run a Standby instance on from its snapshot."""
        return await self._ask(Instance, "POST", _path(reference, "restore"))

    async def detach(self, reference: str) -> Instance:
        """Let a share_memory fork go on with memory of its own, which releases its source's lock."""
        return await self._ask(Instance, "POST", _path(reference, "detach"))

    async def accept(self, reference: str, request: AcceptRequest | None = None) -> Instance:
        """Have the layers of a Standby instance's memory read whole and taken for what they are."""
        return await self._ask(Instance, "POST", _path(reference, "accept"), request or AcceptRequest())

    async def fork(self, reference: str, request: ForkRequest) -> Instance:
        """Make one fork of an instance."""
        return await self._ask(Instance, "POST", _path(reference, "fork"), request)

    async def checkpoint(self, reference: str, request: CheckpointRequest | None = None) -> Instance:
        """Make a Standby instance of a Running one, which runs on; its phase `paused` is how long it did not."""
        return await self._ask(Instance, "POST", _path(reference, "checkpoint"), request or CheckpointRequest())

    async def operations(self) -> list[Operation]:
        """Return what is being done, the oldest first."""
        return self._understood(_OPERATIONS.validate_json, await self._call("GET", "/operations"))

    async def cancel(self, operation_id: str, *, delete_made: bool = False) -> Operation:
        """End an operation; what a fan-out has made by then stays, unless it is to go. Returns how it ended."""
        query = {"made": "delete"} if delete_made else None
        return await self._ask(Operation, "DELETE", f"/operations/{quote(operation_id, safe='')}", query=query)

    async def fan_out(self, reference: str, request: FanOutRequest) -> FanOutResult:
        """Make many forks; a child that failed says why in its place."""
        return await self._ask(FanOutResult, "POST", _path(reference, "fan-out"), request)

    async def fan_out_estimate(self, reference: str, request: FanOutRequest) -> FanOutEstimate:
        """Return how many forks fit and what limits them, and make none."""
        dry = request.model_copy(update={"dry_run": True})
        return await self._ask(FanOutEstimate, "POST", _path(reference, "fan-out"), dry, patience=READ)

    async def wait(
        self, reference: str, state: State, seconds: float, *, ready: bool = False, readiness: str | None = None
    ) -> WaitResult:
        """Wait until the instance is in a state, as often as the supervisor bounds the wait.

        With `ready` also until its guest is, by its own readiness, or with `readiness` by that; or until it has ended.
        """
        instance_id = (await self.instance(reference)).id
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            left = max(0.0, deadline - asyncio.get_running_loop().time())
            query = {"state": state.value, "timeout": f"{left * 1e3:.0f}ms"}
            query |= {"ready": "true"} if ready else {}
            query |= {"readiness": readiness} if readiness is not None else {}
            result = await self._ask(WaitResult, "GET", _path(instance_id, "wait"), query=query, patience=VERB)
            if not result.timed_out or asyncio.get_running_loop().time() >= deadline:
                return result

    async def memory(self, reference: str, width: int) -> PageMapFold:
        """Return the page map of a uffd fork, folded to `width` cells."""
        return await self._ask(PageMapFold, "GET", _path(reference, "memory"), query={"width": str(width)})

    async def machine(self, reference: str) -> MachineInfo:
        """Return what an instance's directory has of its memory and of its devices."""
        return await self._ask(MachineInfo, "GET", _path(reference, "machine"))

    async def lineage(self, reference: str) -> Lineage:
        """Return an instance's sources and the tree below it."""
        return await self._ask(Lineage, "GET", _path(reference, "lineage"))

    async def stats(self, reference: str) -> ResourceStats:
        """Return what one instance uses."""
        return await self._ask(ResourceStats, "GET", _path(reference, "stats"))

    async def logs(self, reference: str, tail: int = 100, source: LogSource = "app") -> list[str]:
        """Return the last lines of one of the instance's logs."""
        return [line async for line in self._log(reference, tail, source, follow=False)]

    async def follow_log(
        self,
        reference: str,
        tail: int = 100,
        source: LogSource = "app",
        alive: Callable[[], object] = lambda: None,
    ) -> AsyncGenerator[str, None]:
        """Yield the last lines of a log, then each that is added; ends with the instance or the supervisor.

        `alive` is called when the supervisor has answered, and at each sign of life after that.
        """
        async with aclosing(self._log(reference, tail, source, follow=True, alive=alive)) as lines:
            async for line in lines:
                yield line

    async def events(
        self,
        last_event_id: str | None = None,
        silence: float = SILENCE_SECONDS,
        alive: Callable[[], object] = lambda: None,
        silent: Callable[[str], object] = lambda line: None,
        gather: float = 0.0,
    ) -> AsyncGenerator[tuple[str, Event], None]:
        """Yield (event id, event) from `last_event_id` on, or from a Reset; events of unknown types are passed over.

        `alive` is called at each sign of life, events or not, and `silent` with a line where they stay out. Where many
        come at once, others are waited for, for `gather` seconds.
        Raises SupervisorUnreachableError where the stream ends or is silent for `silence` seconds.
        """
        headers = {"Last-Event-ID": last_event_id} if last_event_id else {}
        async with aclosing(
            self._stream(
                "/events",
                headers=headers,
                patience=Patience(silence, silence),
                alive=alive,
                silent=silent,
                gather=gather,
            )
        ) as stream:
            async for sent in stream:
                if sent.type in EVENT_TYPES:
                    yield sent.id, await decode(sent.data)
        raise self._lost("the stream of events ended")

    @asynccontextmanager
    async def console(
        self, reference: str, position: int | None, *, watch: bool
    ) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Give the WebSocket of a guest's console, from a position on; nobody else may type while it is not `watch`."""
        query = {"watch": str(watch).lower()} | ({} if position is None else {"position": str(position)})
        async with self._web_socket(_path(reference, "console"), query, changes=not watch) as socket:
            yield socket

    def lost(self) -> SupervisorUnreachableError:
        """Return what is raised where a connection is lost."""
        return self._lost("the connection was lost")

    async def snapshot(self) -> HostSnapshot:
        """Return the whole host: instances, templates and statistics."""
        async with aclosing(self.events(silence=ANSWER_SECONDS + ASK_SECONDS)) as events:
            async for _, event in events:
                if isinstance(event, Reset):
                    return event.snapshot
        raise AssertionError("a stream of events ends by an error only")

    async def _log(
        self,
        reference: str,
        tail: int,
        source: LogSource,
        *,
        follow: bool,
        alive: Callable[[], object] = lambda: None,
    ) -> AsyncGenerator[str, None]:
        query = {"tail": str(tail), "source": source, "follow": str(follow).lower()}
        patience = VERB if follow else READ
        async with aclosing(
            self._stream(_path(reference, "logs"), query=query, patience=patience, alive=alive)
        ) as stream:
            async for sent in stream:
                yield json.loads(sent.data)


def _path(reference: str, *rest: str) -> str:
    return "/".join(("/instances", quote(reference, safe=""), *rest))
