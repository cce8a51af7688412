"""The routes: each parses, asks the host, and answers."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic import TypeAdapter

from supervisor.api.answers import JSON, answer
from supervisor.api.closing import Closing
from supervisor.api.log_file import LogFile
from supervisor.api.requests import (
    CancelQuery,
    DeleteQuery,
    ListQuery,
    LogsQuery,
    MemoryQuery,
    WaitQuery,
    parse_body,
    parse_query,
    wait_bound,
)
from supervisor.api.streaming import Streams
from supervisor.models import (
    CheckpointRequest,
    CreateRequest,
    FanOutRequest,
    ForkRequest,
    ImageInfo,
    Instance,
    Operation,
    Request,
    WaitResult,
)

if TYPE_CHECKING:
    from supervisor.host.host import Host

_IMAGES: Final = TypeAdapter(list[ImageInfo])
_INSTANCES: Final = TypeAdapter(list[Instance])
_OPERATIONS: Final = TypeAdapter(list[Operation])
_CAPABILITIES: Final = TypeAdapter(dict[str, object])


class Routes:
    """What the API answers, for one host."""

    def __init__(self, host: "Host", streams: Streams, closing: Closing) -> None:
        self._host = host
        self._streams = streams
        self._closing = closing

    def table(self) -> list[web.RouteDef]:
        """Return every route; a HEAD of a stream or of a wait would never end, so these have none."""
        one = "/instances/{id}"
        return [
            web.get("/health", self._health),
            web.get("/capabilities", self._capabilities),
            web.get("/events", self._streams.events, allow_head=False),
            web.get("/images", self._images),
            web.get("/instances", self._list),
            web.post("/instances", self._create),
            web.get(one, self._get),
            web.delete(one, self._delete),
            web.post(f"{one}/start", self._verb(self._host.start)),
            web.post(f"{one}/stop", self._verb(self._host.stop)),
            web.post(f"{one}/standby", self._verb(self._host.standby)),
            web.post(f"{one}/restore", self._verb(self._host.restore)),
            web.post(f"{one}/detach", self._verb(self._host.detach)),
            web.post(f"{one}/fork", self._fork),
            web.post(f"{one}/fan-out", self._fan_out),
            web.post(f"{one}/checkpoint", self._checkpoint),
            web.get(f"{one}/wait", self._wait, allow_head=False),
            web.get(f"{one}/logs", self._logs, allow_head=False),
            web.get(f"{one}/stats", self._stats),
            web.get(f"{one}/lineage", self._lineage),
            web.get(f"{one}/memory", self._memory),
            web.get("/operations", self._operations),
            web.get("/operations/{id}", self._operation),
            web.delete("/operations/{id}", self._cancel),
        ]

    async def _health(self, request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _capabilities(self, request: web.Request) -> web.Response:
        return web.Response(body=_CAPABILITIES.dump_json(self._host.capabilities()), content_type=JSON)

    async def _images(self, request: web.Request) -> web.Response:
        return web.Response(body=_IMAGES.dump_json(await self._host.images()), content_type=JSON)

    async def _list(self, request: web.Request) -> web.Response:
        query = parse_query(request, ListQuery)
        return web.Response(body=_INSTANCES.dump_json(self._host.queries.instances(query.state)), content_type=JSON)

    async def _create(self, request: web.Request) -> web.Response:
        body = await parse_body(request, CreateRequest, self._closing)
        return answer(await self._host.create(body), HTTPStatus.CREATED)

    async def _get(self, request: web.Request) -> web.Response:
        return answer(self._host.queries.instance(_reference(request)))

    async def _delete(self, request: web.Request) -> web.Response:
        query = parse_query(request, DeleteQuery)
        if query.dry_run:
            return answer(await self._host.deletion_plan(_reference(request), cascade=query.cascade))
        await self._host.delete(_reference(request), cascade=query.cascade)
        return web.Response(status=HTTPStatus.NO_CONTENT)

    def _verb(self, verb: Callable[[str], Awaitable[Instance]]) -> Handler:
        async def handle(request: web.Request) -> web.Response:
            await parse_body(request, Request, self._closing)
            return answer(await verb(_reference(request)))

        return handle

    async def _fork(self, request: web.Request) -> web.Response:
        body = await parse_body(request, ForkRequest, self._closing)
        return answer(await self._host.fork(_reference(request), body), HTTPStatus.CREATED)

    async def _fan_out(self, request: web.Request) -> web.Response:
        body = await parse_body(request, FanOutRequest, self._closing)
        if body.dry_run:
            return answer(await self._host.fan_out_estimate(_reference(request), body))
        return answer(await self._host.fan_out(_reference(request), body))

    async def _checkpoint(self, request: web.Request) -> web.Response:
        body = await parse_body(request, CheckpointRequest, self._closing)
        return answer(await self._host.checkpoint(_reference(request), body), HTTPStatus.CREATED)

    async def _wait(self, request: web.Request) -> web.Response:
        query = parse_query(request, WaitQuery)
        reference = _reference(request)
        try:
            async with self._closing.bound(None):
                return answer(await self._host.queries.wait(reference, query.state, wait_bound(query, request.headers)))
        except TimeoutError:
            now = self._host.queries.instance(reference)
            return answer(WaitResult(state=now.state, timed_out=True, state_error=now.state_error))

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        query = parse_query(request, LogsQuery)
        path = self._host.queries.log_file(_reference(request), query.source)
        return await self._streams.log(request, LogFile(path), query)

    async def _stats(self, request: web.Request) -> web.Response:
        return answer(await self._host.queries.stats(_reference(request)))

    async def _lineage(self, request: web.Request) -> web.Response:
        return answer(self._host.queries.lineage(_reference(request)))

    async def _memory(self, request: web.Request) -> web.Response:
        query = parse_query(request, MemoryQuery)
        return answer(await self._host.queries.memory(_reference(request), query.width))

    async def _operations(self, request: web.Request) -> web.Response:
        return web.Response(body=_OPERATIONS.dump_json(self._host.operations()), content_type=JSON)

    async def _operation(self, request: web.Request) -> web.Response:
        return answer(self._host.operation(_reference(request)))

    async def _cancel(self, request: web.Request) -> web.Response:
        query = parse_query(request, CancelQuery)
        return answer(await self._host.cancel(_reference(request), delete_made=query.made == "delete"))


def _reference(request: web.Request) -> str:
    return request.match_info["id"]
